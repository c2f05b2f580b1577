"""dvc.yaml says what the stages really read and write."""

from typing import Any

import pytest
import yaml
from support.imports import imported_by
from support.project import ROOT

from pipeline.config.params import Params

STAGES = ("fetch", "clean", "format", "tokenize", "train", "evaluate", "compare")
GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def definition(stage: str) -> dict[str, Any]:
    found = GRAPH["stages"][stage]
    return found.get("do", found)


def test_the_seven_stages_bear_the_names_of_their_folders() -> None:
    assert tuple(GRAPH["stages"]) == STAGES
    for stage in STAGES:
        assert definition(stage)["cmd"].split(" instance=")[0] == f"python -m pipeline.{stage}"


def code_deps(stage: str) -> list[str]:
    return [dep for dep in definition(stage)["deps"] if dep.startswith("pipeline/")]


def imported(stage: str) -> set[str]:
    return {path for path in imported_by(f"pipeline.{stage}", ROOT) if not path.endswith("/__init__.py")}


@pytest.mark.parametrize("stage", STAGES)
def test_every_imported_module_lies_under_a_dependency(stage: str) -> None:
    deps = code_deps(stage)
    uncovered = [path for path in imported(stage) if not any(path == dep or path.startswith(f"{dep}/") for dep in deps)]
    assert uncovered == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_uses_every_module_of_the_folders_that_it_depends_on(stage: str) -> None:
    files = {dep for dep in code_deps(stage) if dep.endswith(".py")}
    for folder in set(code_deps(stage)) - files:
        files |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
    assert {path for path in files if not path.endswith("/__init__.py")} == imported(stage)


def test_imports_are_found_through_functions_and_other_modules() -> None:
    found = imported_by("pipeline.fetch", ROOT)
    assert {"pipeline/fetch/scratch.py", "pipeline/synthetic/dialogues.py", "pipeline/errors.py"} <= found
    assert "pipeline/format/near_duplicates.py" not in found


@pytest.mark.parametrize("stage", STAGES)
def test_git_and_not_the_cache_holds_every_metrics_file(stage: str) -> None:
    for kind in ("metrics", "plots"):
        for entry in definition(stage).get(kind, []):
            ((_, options),) = entry.items()
            assert options["cache"] is False


def test_a_stage_reads_no_section_of_the_parameters_but_its_own() -> None:
    read = {stage: definition(stage)["params"] for stage in STAGES}
    assert read == {
        "fetch": ["${key}"],
        "clean": ["clean"],
        "format": ["format"],
        "tokenize": ["tokenize"],
        "train": ["train", "compute"],
        "evaluate": ["evaluate", "compute.device"],
        "compare": ["compare"],
    }
    assert {"data", "model", *STAGES[1:], "compute", "version"} == set(Params.model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_takes_from_the_parameters_what_dvc_is_told(stage: str) -> None:
    source = (ROOT / "pipeline" / stage / "stage.py").read_text(encoding="utf-8")
    told = {"data", "model"} if stage == "fetch" else {name.split(".")[0] for name in definition(stage)["params"]}
    taken = {name for name in Params.model_fields if f"params.{name}" in source}
    assert taken == told
