"""What names a dataset: the hash of what it was made from, the program included."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any


def code_version(*names: str) -> str:
    """The hash of source files of this package, read as resources, so it is the same from a zip.

    Args:
        names: Files or folders below ``jobs``, as in ``tokens/bpe.py`` or ``text``.
    """
    digest = hashlib.sha256()
    for name in names:
        for path, source in _sources(name, files("jobs").joinpath(name)):
            digest.update(f"{path}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()


def fingerprint(**parts: Any) -> str:
    """The sha256 of `parts`, which must be values of JSON; their order does not matter."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _sources(name: str, entry: Traversable) -> list[tuple[str, bytes]]:
    """The names and contents of the Python files at and below `entry`, sorted by name."""
    if entry.is_file():
        return [(name, entry.read_bytes())] if name.endswith(".py") else []
    inner = sorted(entry.iterdir(), key=lambda child: child.name)
    return [pair for child in inner for pair in _sources(f"{name}/{child.name}", child)]
