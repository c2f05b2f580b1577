"""The patterns of clean: each data option chooses its own, and whatever a user sets wins."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.project import SHIPPED

from pipeline.compose.adopt import adopt
from pipeline.compose.composition import compose_params, parse_params

KEYS = ("question_prefixes", "strip", "boilerplate")
NONE: dict[str, list[str]] = {key: [] for key in KEYS}
MEDICAL = {
    key: parse_params((SHIPPED / "conf/clean/patterns/medical.yaml").read_text(encoding="utf-8"))[key] for key in KEYS
}
FILE, HUB = ["data=file", "data.path=rows.csv"], ["data=hub", "data.name=owner/rows"]


def patterns(*overrides: str) -> dict[str, Any]:
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
        pytest.param(["clean/patterns=none"], NONE, id="option on the command line"),
        pytest.param([*HUB, "clean/patterns=medical"], MEDICAL, id="medical patterns for other data"),
        pytest.param(["experiment=tutorial", "clean/patterns=none"], NONE, id="option over an experiment"),
    ],
)
def test_data_options_choose_their_patterns(
    in_shipped: Path, overrides: list[str], expected: dict[str, list[str]]
) -> None:
    assert patterns(*overrides) == expected


def test_medical_patterns_are_not_empty() -> None:
    assert all(MEDICAL.values())


def test_keys_in_clean_win_over_the_patterns_of_the_data(in_shipped: Path) -> None:
    path = in_shipped / "conf/clean/default.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "strip: [x]\n", encoding="utf-8")
    assert patterns() == MEDICAL | {"strip": ["x"]}
    assert patterns(*FILE) == NONE | {"strip": ["x"]}


def test_a_data_option_of_your_own_chooses_patterns(in_shipped: Path) -> None:
    (in_shipped / "conf/clean/patterns/mine.yaml").write_text(
        "# @package clean\nquestion_prefixes: [Ticket]\nstrip: []\nboilerplate: [regards]\n", encoding="utf-8"
    )
    text = (in_shipped / "conf/data/medical.yaml").read_text(encoding="utf-8")
    (in_shipped / "conf/data/mine.yaml").write_text(text.replace("patterns: medical", "patterns: mine"), "utf-8")
    assert patterns("data=mine") == {"question_prefixes": ["Ticket"], "strip": [], "boilerplate": ["regards"]}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param(["data.rows=900"], MEDICAL, id="generated"),
        pytest.param(["data=medical", "data.limit=10"], MEDICAL, id="medical"),
        pytest.param(["data=file", "data.path=rows.csv"], NONE, id="file"),
        pytest.param(["data=file", "data.path=rows.csv", "clean.strip=[x]"], NONE | {"strip": ["x"]}, id="key"),
        pytest.param(["data.rows=900", "clean/patterns=none"], NONE, id="other patterns"),
    ],
)
def test_an_adopted_source_keeps_its_patterns(
    project: Path, overrides: list[str], expected: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "rows.csv").write_text("question,answer\nWhy?,So.\n", encoding="utf-8")
    (project / "params.yaml").write_text(compose_params(*overrides), encoding="utf-8")
    adopt()
    assert "data: adopted" in (project / "conf/config.yaml").read_text(encoding="utf-8")
    assert patterns() == expected
