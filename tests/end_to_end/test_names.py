"""One word, one meaning: what the names of the package and of its tests must keep to."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from support.project import ROOT

LONGEST_NAME = 12  # words of a test's name, `test` not counted


def definitions(path: Path) -> Iterator[str]:
    """The functions and classes of a module, by name."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def test_no_two_modules_define_a_public_name() -> None:
    modules = defaultdict(list)
    for path in (ROOT / "pipeline").rglob("*.py"):
        for name in definitions(path):
            if not name.startswith("_") and name != "main":
                modules[name].append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}


def test_the_package_holds_commands_and_shared_folders_alone() -> None:
    """`ls pipeline` is the table of contents."""
    shared = {"config", "core", "records", "modeling", "scoring", "synthetic"}
    folders = {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    commands = {path.parent.name for path in (ROOT / "pipeline").glob("*/__main__.py")}
    assert folders - commands == shared
    modules = {path.stem for path in (ROOT / "pipeline").glob("*.py")} - {"__init__", "errors"}
    without_main = [name for name in modules if "main" not in definitions(ROOT / f"pipeline/{name}.py")]
    assert without_main == []
    assert not list((ROOT / "pipeline").rglob("util*"))


def test_names_of_tests_are_short_and_their_modules_stand_alone() -> None:
    paths = list((ROOT / "tests").rglob("*.py"))
    names = [name for path in paths for name in definitions(path) if name.startswith("test_")]
    assert [name for name in names if len(name.split("_")) - 1 > LONGEST_NAME] == []
    modules = {path.stem for path in paths if path.stem.startswith("test_")}
    imports = [
        (path.name, node.module)
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[-1] in modules
    ]
    assert imports == []
