"""Reads a lock with hashes, as uv and pip-compile write it. Standard library alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\\n]*?)\s*)?(?:\\?\n|$)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One locked version of a distribution."""

    name: str
    version: str
    marker: str | None
    """Where it applies; a distribution may have several pins for different Pythons."""
    hashes: frozenset[str]


def read(text: str) -> dict[str, list[Pin]]:
    """The pins of a lock by the normalized name of the distribution."""
    pins: dict[str, list[Pin]] = {}
    for block in _blocks(text):
        if found := _PIN.match(block):
            name = normalized(found["name"])
            pin = Pin(name, found["version"], found["marker"], frozenset(_HASH.findall(block)))
            pins.setdefault(name, []).append(pin)
    return pins


def without(text: str, names: Collection[str]) -> str:
    """The lock without some distributions."""
    kept = [block for block in _blocks(text) if not ((pin := _PIN.match(block)) and normalized(pin["name"]) in names)]
    return "".join(kept)


def normalized(name: str) -> str:
    """The name of a distribution as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _blocks(text: str) -> Iterator[str]:
    """A distribution's lines each: its name stands at the start of a line, all else is indented."""
    return iter(re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE))
