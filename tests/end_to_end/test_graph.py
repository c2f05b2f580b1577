"""dvc.yaml lists the code, parameters and outputs that the stages use, and no others."""

from typing import Any

import pytest
import yaml
from support.imports import imported_by
from support.project import ROOT

from pipeline.config.params import Params

STAGES = ("fetch", "clean", "format", "tokenize", "train", "evaluate", "compare")
GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def definition(stage: str) -> dict[str, Any]:
    entry = GRAPH["stages"][stage]
    return entry.get("do", entry)


def test_the_seven_stages_have_the_names_of_their_folders() -> None:
    assert tuple(GRAPH["stages"]) == STAGES
    for stage in STAGES:
        assert definition(stage)["cmd"].split(" instance=")[0] == f"python -m pipeline.{stage}"


def code_deps(stage: str) -> list[str]:
    return [dep for dep in definition(stage)["deps"] if dep.startswith("pipeline/")]


def imported(stage: str) -> set[str]:
    return {path for path in imported_by(f"pipeline.{stage}", ROOT) if not path.endswith("/__init__.py")}


@pytest.mark.parametrize("stage", STAGES)
def test_every_imported_module_is_in_a_dependency(stage: str) -> None:
    deps = code_deps(stage)
    uncovered = [path for path in imported(stage) if not any(path == dep or path.startswith(f"{dep}/") for dep in deps)]
    assert uncovered == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_uses_every_module_of_its_dependencies(stage: str) -> None:
    files = {dep for dep in code_deps(stage) if dep.endswith(".py")}
    for folder in set(code_deps(stage)) - files:
        files |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
    assert {path for path in files if not path.endswith("/__init__.py")} == imported(stage)


def test_imports_in_functions_and_indirect_imports_are_found() -> None:
    imports = imported_by("pipeline.fetch", ROOT)
    assert {"pipeline/fetch/scratch_model.py", "pipeline/synthetic/dialogues.py", "pipeline/errors.py"} <= imports
    assert "pipeline/format/near_duplicates.py" not in imports


@pytest.mark.parametrize("stage", STAGES)
def test_metrics_that_dvc_prints_are_in_git_others_in_cache(stage: str) -> None:
    for kind in ("metrics", "plots"):
        for entry in definition(stage).get(kind, []):
            ((_, options),) = entry.items()
            assert options["cache"] is False
    instances = {"fetch": "/${key}", "evaluate": "/${item.model}"}
    name = f"{stage}{instances.get(stage, '')}.json"
    outs = definition(stage)["outs"]
    assert {type(out) for out in outs} == {str}  # with an uncached output, DVC would not use its run cache
    assert f"metrics/details/{name}" in outs
    assert f"metrics/runtime/{name}" in (outs if stage != "train" else definition(stage)["metrics"][-1])


def test_stages_depend_on_their_own_sections_of_the_parameters() -> None:
    read = {stage: definition(stage)["params"] for stage in STAGES}
    assert read == {
        "fetch": ["${key}"],
        "clean": ["clean"],
        "format": ["format"],
        "tokenize": ["tokenize"],
        "train": ["train", "compute"],
        "evaluate": ["evaluate", "compute.device", "compute.threads"],
        "compare": ["compare"],
    }
    assert {"data", "model", *STAGES[1:], "compute", "version"} == set(Params.model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_exactly_the_sections_that_dvc_tracks(stage: str) -> None:
    source = (ROOT / "pipeline" / stage / "stage.py").read_text(encoding="utf-8")
    tracked = {"data", "model"} if stage == "fetch" else {name.split(".")[0] for name in definition(stage)["params"]}
    read = {name for name in Params.model_fields if f"params.{name}" in source}
    assert read == tracked
