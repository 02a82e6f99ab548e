"""Fingerprints, which name datasets: hashes of the inputs, the settings and the code that made a dataset."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

IGNORED_MODULES = {
    "jobs.config": "each fingerprint covers the values of the settings",
    "jobs.engine": "an engine decides where functions run, not what they return",
    "jobs.errors": "messages and exit codes are not part of a dataset",
    "jobs.fingerprint": "a change here that matters changes the fingerprints themselves",
    "jobs.lake": "stored bytes are checked against hashes, and each fingerprint covers the hashes of the inputs",
    "jobs.metrics": "it describes statistics, which are written beside a dataset, not into it",
    "jobs.statistics": "statistics and progress are written beside a dataset, not into it",
}
"""Modules and packages that cannot change the content of a dataset, each with the reason.

The search for dependencies ignores these modules and does not follow their imports.
"""

_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""The fields of a statement that hold other statements. Visiting only these takes half the time of `ast.walk`."""


def fingerprint(**parts: Any) -> str:
    """Return the hexadecimal SHA-256 of `parts`, which must be JSON values. The order of arguments does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def code_version(module: str) -> str:
    """Return the hash of the source of `module` and of all modules of `jobs` that it depends on.

    The files are read as package resources, so the hash does not change if the package runs from a zip file.
    """
    return hash_code(module, files("jobs"))


def hash_code(module: str, package: Traversable) -> str:
    """Return the hash of the source of `module` and its dependencies, read from `package`, a copy of `jobs`."""
    digest = hashlib.sha256()
    for name, source in sorted(find_dependencies(module, package).items()):
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()


def find_dependencies(module: str, package: Traversable) -> dict[str, bytes]:
    """Return the sources of `module` and of all modules of `jobs` that it imports, directly or indirectly.

    Imports inside functions count; imports below ``if TYPE_CHECKING`` do not. `IGNORED_MODULES` are left out. Modules
    that are imported by a computed name are not found.
    """
    found: dict[str, bytes] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        is_leaf = ".".join(name.split(".")[:2]) in IGNORED_MODULES
        if name in found or is_leaf or (entry := _find_source(name, package)) is None:
            continue
        found[name] = entry.read_bytes()
        # Before a module, Python runs the `__init__.py` of the package that contains it.
        pending += [
            name.rpartition(".")[0],
            *_imported_names(found[name], name, is_package=entry.name == "__init__.py"),
        ]
    return found


def _find_source(module: str, package: Traversable) -> Traversable | None:
    """Return the source file of a module of `jobs`. Return None if the name is not that of a module of `jobs`."""
    first, *rest = module.split(".")
    if first != "jobs":
        return None
    candidates = [package.joinpath(*rest, "__init__.py")]
    if rest:
        candidates.append(package.joinpath(*rest[:-1], f"{rest[-1]}.py"))
    return next((entry for entry in candidates if entry.is_file()), None)


def _imported_names(source: bytes, module: str, is_package: bool) -> Iterator[str]:
    """Yield the full dotted names that a module imports. Some may be functions or classes instead of modules."""
    for statement in import_statements(source):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        else:
            parents = module.split(".")[: None if is_package else -1]
            start = parents[: len(parents) - statement.level + 1] if statement.level else []
            base = ".".join([*start, *([statement.module] if statement.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in statement.names))


@cache
def import_statements(source: bytes) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Return the import statements of a module, also those in functions, without those below ``if TYPE_CHECKING:``.

    Raises:
        SyntaxError: if `source` is not Python.
    """
    found: list[ast.Import | ast.ImportFrom] = []
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes += node.orelse
        else:
            nodes += [child for block in _BLOCKS for child in getattr(node, block, [])]
    return tuple(found)
