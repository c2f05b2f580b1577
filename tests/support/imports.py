"""Which modules of the package a module imports, directly and through others, found by reading the source."""

import ast
from collections.abc import Iterator
from pathlib import Path


def imported_by(module: str, root: Path = Path(".")) -> set[str]:
    """Paths (pipeline/x/y.py) of `module` and all that it imports from the package, imports inside functions included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        path = path_of(waiting.pop(), root)
        if path is not None and path not in found:
            found.add(path)
            waiting += _imports(ast.parse((root / path).read_text(encoding="utf-8")))
    return found


def path_of(module: str, root: Path) -> str | None:
    """The file of a dotted module of the package; a folder's is its __main__.py. None for a name within a module."""
    path = module.replace(".", "/")
    candidates = (f"{path}.py", f"{path}/__main__.py")
    return next((each for each in candidates if (root / each).is_file()), None)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pipeline":
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pipeline."))
