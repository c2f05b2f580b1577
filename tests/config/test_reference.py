"""docs/configuration.md and the comments in conf/ are the docstrings' texts, whatever values and files a user has."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.project import ROOT, SHIPPED

from pipeline.compose.adopt import adopt
from pipeline.compose.composition import compose_params
from pipeline.config.base import Section
from pipeline.config.validation import DISCRIMINATORS
from pipeline.document_config import cli
from pipeline.document_config.comments import expected_comments, outdated_comments, write_comments
from pipeline.document_config.fields import describe_key, first_sentence
from pipeline.document_config.page import PAGE, render_page

MAX_COMMENT = 82  # characters: a line of conf/ should have at most 120


@pytest.fixture
def in_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory holds the shipped configuration and this project's page."""
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / PAGE, tmp_path / PAGE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_defaults(page: str) -> list[str]:
    """The page's paragraphs and list items, without line breaks and without default values, which are the user's."""
    items = (" ".join(item.split()) for item in re.split(r"\n\n|\n(?=- )", page))
    return [re.sub("Default: .*", "", item) for item in items]


def require_current_reference() -> None:
    """Fail unless the page and the comments in the working directory are current; keys without a comment are a user's."""
    assert without_defaults(PAGE.read_text(encoding="utf-8")) == without_defaults(render_page())
    for path, comments in expected_comments().items():
        outdated = outdated_comments(path.read_text(encoding="utf-8"), comments)
        hint = f"{path}: run python -m pipeline.document_config; a comment of your own goes on a line above its key"
        assert [key for key, comment in outdated.items() if comment] == [], hint


def sections(parent: type[Section] = Section) -> Iterator[type[Section]]:
    for section in parent.__subclasses__():
        yield section
        yield from sections(section)


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.__name__)
def test_every_key_is_described_and_its_comment_fits(section: type[Section]) -> None:
    comments = {key: first_sentence(describe_key(section, key)) for key in section.model_fields}
    assert {key: text for key, text in comments.items() if not 0 < len(text) <= MAX_COMMENT} == {}


def test_reference_of_this_project_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    require_current_reference()


def test_every_key_of_the_shipped_files_has_its_comment(in_shipped: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in expected_comments()}
    assert {path: outdated_comments(texts[path], comments) for path, comments in expected_comments().items()} == {
        path: {} for path in texts
    }


def test_page_names_every_key_and_option(in_shipped: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    keys = {keys[-1] for comments in expected_comments().values() for keys in comments} - set(DISCRIMINATORS)
    assert [key for key in sorted(keys) if not re.search(rf"`([\w.]+[./])?{key}`", page)] == []
    paths = [path.relative_to("conf") for path in Path("conf").rglob("*/*.yaml")]
    options = [f"{path.parent}={path.stem}" for path in paths if path.parts[0] not in ("hydra", "experiment")]
    assert [option for option in options if f"`{option}`" not in page and not option.endswith("=default")] == []


def test_values_and_files_of_a_user_leave_the_reference_current(in_shipped: Path) -> None:
    train = Path("conf/train/default.yaml")
    text = train.read_text(encoding="utf-8").replace("learning_rate: 4.0e-04", "learning_rate: 1e-3")
    train.write_text(text.replace("method: full", "method: lora"), encoding="utf-8")
    Path("conf/data/helpdesk.yaml").write_text(
        "source: file  # of the help desk\npath: tickets.csv\n", encoding="utf-8"
    )
    clean = Path("conf/clean/default.yaml")
    clean.write_text(clean.read_text(encoding="utf-8") + "strip: ['--.*']\n", encoding="utf-8")
    require_current_reference()
    assert "learning_rate: 1e-3  " in train.read_text(encoding="utf-8")


ADOPTED = {
    "a changed source": ["data.rows=900", "train.learning_rate=3e-4"],
    "other options": ["data=medical", "model=pythia-70m", "data.limit=10", "train/method=lora", "train.method.rank=2"],
    "a file": ["data=file", "data.path=rows.csv", "data.columns={question: Title, answer: Reply}"],
}


@pytest.mark.parametrize("overrides", ADOPTED.values(), ids=ADOPTED)
def test_adopting_leaves_the_reference_current(
    project: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "rows.csv").write_text("Title,Reply\nWhy?,So.\n")
    (project / "params.yaml").write_text(compose_params(*overrides))
    adopt()
    require_current_reference()


def test_command_writes_what_is_outdated(
    in_shipped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["document_config", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), capsys.readouterr().out

    lora, page = Path("conf/train/method/lora.yaml"), PAGE.read_text(encoding="utf-8")
    text = lora.read_text(encoding="utf-8")
    lora.write_text(re.sub("(?m)^rank: 8 .*", "# ours\nrank: 8  # outdated", text), encoding="utf-8")
    PAGE.unlink()
    assert run("--check") == (
        1,
        "conf/train/method/lora.yaml is not current: python -m pipeline.document_config\n"
        "docs/configuration.md is not current: python -m pipeline.document_config\n",
    )
    assert run() == (0, "conf/train/method/lora.yaml written.\ndocs/configuration.md written.\n")
    assert lora.read_text(encoding="utf-8") == text.replace("rank: 8 ", "# ours\nrank: 8 ")
    assert without_defaults(PAGE.read_text(encoding="utf-8")) == without_defaults(page)
    assert run("--check") == (0, "docs/configuration.md and the comments in conf/ are current.\n")


def test_command_outside_the_project_says_where_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["document_config"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "conf/config.yaml is not here: run this in the project's root" in capsys.readouterr().err


TEXTS = {
    "nested": ("near: # old\n  threshold: 0.7\n", "near:             # N\n  threshold: 0.7  # T\n"),
    "list": ("strip:\n  - '#x'\n", "strip:  # S\n  - '#x'\n"),
    "number sign in a value": ("strip: ['# x']\n", "strip: ['# x']  # S\n"),
    "empty value": ("strip:\n", "strip:  # S\n"),
    "value on several lines": ("strip: [a,\n  b]\n", "strip: [a,\n  b]\n"),
    "other keys": ("a: 1 # mine\n\n# above\nstrip: x\n", "a: 1 # mine\n\n# above\nstrip: x  # S\n"),
    "nothing": ("# nothing\n", "# nothing\n"),
}


@pytest.mark.parametrize(("before", "after"), TEXTS.values(), ids=TEXTS)
def test_comments_are_written_after_keys(before: str, after: str) -> None:
    comments = {("near",): "N", ("near", "threshold"): "T", ("strip",): "S"}
    assert write_comments(before, comments) == after == write_comments(after, comments)
    assert yaml.safe_load(after) == yaml.safe_load(before)
    assert outdated_comments(after, comments) == {}
