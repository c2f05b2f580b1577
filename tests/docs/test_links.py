"""Every link, image and path in the documentation leads somewhere, and the site builds without a warning."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.project import ROOT

PAGES = [*(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
PAGES += sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
INCLUDE = re.compile(r"^```\{include\} (\S+)", re.MULTILINE)
REPOSITORY = re.compile(r"(pipeline|tests|conf|bench|docs|hydra_plugins|data/knowledge|models/nano|\.ci)/[\w./-]+")
MADE_LATER = {"conf/data/adopted.yaml", "conf/start", "docs/_build/html"}  # by --adopt, by start, by make docs


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """The anchor that GitHub and MyST give a heading.

    >>> anchor("What's in `data/`, and why?")
    'whats-in-data-and-why'
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """The anchors of a page, and those of a page that it includes."""
    included = INCLUDE.findall(page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
    return {anchor(heading) for heading in headings}.union(*(anchors(page.parent / name) for name in included))


def links(page: Path) -> Iterator[str]:
    for match in LINK.finditer(re.sub(r"`[^`]*`", "", prose(page))):
        if "://" not in match["target"]:
            yield match["target"]


def is_broken(page: Path, target: str) -> bool:
    path, _, fragment = target.partition("#")
    linked = (page.parent / path).resolve() if path else page
    return not linked.exists() or (bool(fragment) and fragment not in anchors(linked))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_resolves_with_its_anchor(page: Path) -> None:
    assert [target for target in links(page) if is_broken(page, target)] == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[a](#a-title) [b](#b) [c](page.md#a-title) [d](gone.md) ![e](gone.png) `[f](gone.md)`\n"
    )
    assert [target for target in links(page) if is_broken(page, target)] == ["#b", "gone.md", "gone.png"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it also names files that are gone
    paths = [path for path in re.findall(r"`([^`\s]+)`", prose(page)) if REPOSITORY.fullmatch(path)]
    named = [path for path in paths if not re.search(r"[A-Z]{3,}", path)]  # such as conf/SECTION/default.yaml
    assert [path for path in named if not (ROOT / path).exists() and path not in MADE_LATER] == []


def test_the_readme_tree_lists_every_entry_of_pipeline() -> None:
    tree = re.findall(r"^[├└]── ([\w.]+)/? +\S", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    entries = {path.name for path in (ROOT / "pipeline").iterdir() if not path.name.startswith("_")}
    assert sorted(tree) == sorted(entries)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = ("sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "-d", str(tmp_path / "trees"), "docs")
    done = subprocess.run(
        [sys.executable, "-m", *command, str(tmp_path / "html")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html/index.html").exists()
