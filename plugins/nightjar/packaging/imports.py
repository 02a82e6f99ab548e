"""Find the third-party modules that a package imports, from its source. Nothing is executed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path


def third_party_imports(root: Path, package: str) -> dict[str, Path]:
    """Return the third-party top-level modules that `package` below `root` imports, each with a file that imports it.

    Imports under ``if TYPE_CHECKING:`` are ignored.
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
