"""Which modules of the package a module imports, in itself and through them, found by reading the source."""

import ast
from pathlib import Path


def imported_by(module: str, root: Path = Path(".")) -> set[str]:
    """Paths (pipeline/x.py) of `module` and all it imports from the package, imports inside functions included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        path = f"pipeline/{waiting.pop()}.py"
        if path not in found:
            found.add(path)
            waiting += _direct(ast.parse((root / path).read_text(encoding="utf-8")))
    return found


def _direct(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "pipeline":
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline."):
            names.append(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names += [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("pipeline.")]
    return names
