"""Rules for names: no public name twice, only commands and shared folders in pipeline/, short test names."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from support.project import ROOT

MAX_WORDS = 12  # in a test's name, `test` not counted


def definitions(path: Path) -> Iterator[str]:
    """The functions and classes of a module, by name."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def test_public_names_are_unique_in_the_package() -> None:
    modules = defaultdict(list)
    for path in (ROOT / "pipeline").rglob("*.py"):
        for name in definitions(path):
            if not name.startswith("_") and name != "main":
                modules[name].append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}


def test_the_package_has_only_commands_and_shared_folders() -> None:
    """`ls pipeline` is the table of contents."""
    shared = {"chat", "config", "core", "records", "modeling", "scoring", "synthetic"}
    folders = {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    commands = {path.parent.name for path in (ROOT / "pipeline").glob("*/__main__.py")}
    assert folders - commands == shared
    modules = {path.stem for path in (ROOT / "pipeline").glob("*.py")} - {"__init__", "errors"}
    without_main = [name for name in modules if "main" not in definitions(ROOT / f"pipeline/{name}.py")]
    assert without_main == []
    assert not list((ROOT / "pipeline").rglob("util*"))


def test_test_names_are_short_and_test_modules_are_independent() -> None:
    paths = list((ROOT / "tests").rglob("*.py"))
    names = [name for path in paths for name in definitions(path) if name.startswith("test_")]
    assert [name for name in names if len(name.split("_")) - 1 > MAX_WORDS] == []
    modules = {path.stem for path in paths if path.stem.startswith("test_")}
    imports = [
        (path.name, node.module)
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[-1] in modules
    ]
    assert imports == []
