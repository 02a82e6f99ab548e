"""What a package imports from outside, read from its source: nothing is executed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path


def third_party_imports(root: Path, package: str) -> dict[str, Path]:
    """Top-level modules that the code of `package` below `root` imports, each with a file that does.

    Neither the standard library's nor its own, nor what only a type checker imports.
    """
    own = sys.stdlib_module_names | {package}
    found: dict[str, Path] = {}
    for path in sorted((root / package).rglob("*.py")):
        for module in _imported(ast.parse(path.read_text("utf-8"), str(path))):
            if module not in own:
                found.setdefault(module, path.relative_to(root))
    return found


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        yield from _imported(node)
