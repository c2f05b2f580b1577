"""The presets of clean: each data option chooses its own, and whatever a user sets wins."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.project import SHIPPED

from pipeline.compose.adopt import adopt
from pipeline.compose.composition import compose_params, parse_params

KEYS = ("whitespace", "question_prefixes", "strip", "boilerplate")
NONE: dict[str, Any] = {"whitespace": "keep", "question_prefixes": [], "strip": [], "boilerplate": []}
MEDICAL = {
    key: parse_params((SHIPPED / "conf/clean/preset/medical.yaml").read_text(encoding="utf-8"))[key] for key in KEYS
}
FILE, HUB = ["data=file", "data.path=rows.csv"], ["data=hub", "data.name=owner/rows"]


def preset(*overrides: str) -> dict[str, Any]:
    clean = parse_params(compose_params(*overrides))["clean"]
    return {key: clean[key] for key in KEYS}


@pytest.fixture
def in_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory holds the shipped configuration; its sources are not looked at."""
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.compose.resolvers.require_valid", lambda values: None)
    return tmp_path


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param([], MEDICAL, id="default"),
        pytest.param(["data=generated"], MEDICAL, id="generated"),
        pytest.param(["data=medical"], MEDICAL, id="medical"),
        pytest.param(FILE, NONE, id="file"),
        pytest.param(HUB, NONE, id="hub"),
        pytest.param(["experiment=tutorial"], MEDICAL | {"strip": []}, id="tutorial"),
        pytest.param(["clean.strip=[x]"], MEDICAL | {"strip": ["x"]}, id="key on the command line"),
        pytest.param([*FILE, "clean.strip=[x]"], NONE | {"strip": ["x"]}, id="key of a file"),
        pytest.param(["clean/preset=none"], NONE, id="option on the command line"),
        pytest.param([*HUB, "clean/preset=medical"], MEDICAL, id="medical preset for other data"),
        pytest.param(["experiment=tutorial", "clean/preset=none"], NONE, id="option over an experiment"),
    ],
)
def test_data_options_choose_their_presets(in_shipped: Path, overrides: list[str], expected: dict[str, Any]) -> None:
    assert preset(*overrides) == expected


def test_medical_preset_is_not_empty() -> None:
    assert all(MEDICAL.values())


def test_keys_in_clean_win_over_the_preset_of_the_data(in_shipped: Path) -> None:
    path = in_shipped / "conf/clean/default.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "strip: [x]\n", encoding="utf-8")
    assert preset() == MEDICAL | {"strip": ["x"]}
    assert preset(*FILE) == NONE | {"strip": ["x"]}


def test_a_data_option_of_your_own_chooses_a_preset(in_shipped: Path) -> None:
    (in_shipped / "conf/clean/preset/mine.yaml").write_text(
        "# @package clean\nwhitespace: keep\nquestion_prefixes: [Ticket]\nstrip: []\nboilerplate: [regards]\n",
        encoding="utf-8",
    )
    text = (in_shipped / "conf/data/medical.yaml").read_text(encoding="utf-8")
    (in_shipped / "conf/data/mine.yaml").write_text(text.replace("preset: medical", "preset: mine"), "utf-8")
    assert preset("data=mine") == NONE | {"question_prefixes": ["Ticket"], "boilerplate": ["regards"]}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param(["data.rows=900"], MEDICAL, id="generated"),
        pytest.param(["data=medical", "data.limit=10"], MEDICAL, id="medical"),
        pytest.param(["data=file", "data.path=rows.csv"], NONE, id="file"),
        pytest.param(["data=file", "data.path=rows.csv", "clean.strip=[x]"], NONE | {"strip": ["x"]}, id="key"),
        pytest.param(["data.rows=900", "clean/preset=none"], NONE, id="other preset"),
    ],
)
def test_an_adopted_source_keeps_its_preset(
    project: Path, overrides: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "rows.csv").write_text("question,answer\nWhy?,So.\n", encoding="utf-8")
    (project / "params.yaml").write_text(compose_params(*overrides), encoding="utf-8")
    adopt()
    assert "data: adopted" in (project / "conf/config.yaml").read_text(encoding="utf-8")
    assert preset() == expected
