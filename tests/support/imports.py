"""The modules of the package that a module imports, directly and indirectly, by the source."""

import ast
from collections.abc import Iterator
from pathlib import Path


def imported_by(module: str, root: Path = Path(".")) -> set[str]:
    """Paths (pipeline/x/y.py) of a module and of all that it imports from the package, including imports in functions."""
    paths: set[str] = set()
    waiting = [module]
    while waiting:
        path = path_of(waiting.pop(), root)
        if path is not None and path not in paths:
            paths.add(path)
            waiting += _imports(ast.parse((root / path).read_text(encoding="utf-8")))
    return paths


def path_of(module: str, root: Path) -> str | None:
    """The file of a dotted module; for a folder, its __main__.py. None for a name inside a module."""
    path = module.replace(".", "/")
    candidates = (f"{path}.py", f"{path}/__main__.py")
    return next((candidate for candidate in candidates if (root / candidate).is_file()), None)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pipeline":
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pipeline."))
