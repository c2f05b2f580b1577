"""dvc.yaml says what the stages really read and write."""

from typing import Any

import pytest
import yaml
from conftest import ROOT
from imports import imported_by

from pipeline.params import Params

STAGES = ("fetch", "clean", "format", "tokenize", "train", "evaluate", "compare")
GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def definition(stage: str) -> dict[str, Any]:
    found = GRAPH["stages"][stage]
    return found.get("do", found)


def test_the_seven_stages_bear_the_names_of_their_modules() -> None:
    assert tuple(GRAPH["stages"]) == STAGES
    for stage in STAGES:
        assert definition(stage)["cmd"].split(" instance=")[0] == f"python -m pipeline.{stage}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports_and_on_no_other(stage: str) -> None:
    deps = {dep for dep in definition(stage)["deps"] if dep.endswith(".py")}
    assert deps == imported_by(stage, ROOT)


def test_imports_are_found_through_functions_and_other_modules() -> None:
    found = imported_by("fetch", ROOT)
    assert {"pipeline/scratch.py", "pipeline/dialogues.py", "pipeline/errors.py"} <= found
    assert "pipeline/near.py" not in found


def test_the_page_templates_are_a_dependency_of_the_stage_that_renders_them() -> None:
    assert "pipeline/pages" in definition("compare")["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_metrics_file_stays_out_of_the_cache_so_that_git_holds_it(stage: str) -> None:
    for kind in ("metrics", "plots"):
        for entry in definition(stage).get(kind, []):
            ((_, options),) = entry.items()
            assert options["cache"] is False


def test_a_stage_reads_no_section_of_the_parameters_but_its_own() -> None:
    read = {stage: definition(stage)["params"] for stage in STAGES}
    assert read == {
        "fetch": ["${key}"],
        "clean": ["clean", "data.columns"],
        "format": ["format"],
        "tokenize": ["tokenize"],
        "train": ["train", "compute"],
        "evaluate": ["evaluate", "compute.device"],
        "compare": ["compare"],
    }
    assert {"data", "model", *STAGES[1:], "compute", "version"} == set(Params.model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_takes_from_the_parameters_what_dvc_is_told(stage: str) -> None:
    source = (ROOT / "pipeline" / f"{stage}.py").read_text(encoding="utf-8")
    told = {"data", "model"} if stage == "fetch" else {name.split(".")[0] for name in definition(stage)["params"]}
    taken = {name for name in Params.model_fields if f"params.{name}" in source}
    assert taken == told


def test_no_module_is_called_utils() -> None:
    assert not list((ROOT / "pipeline").rglob("util*"))
