"""Read a requirements lock with hashes, as written by uv and pip-compile. Needs only the standard library."""

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
    """Environment marker. A distribution may have several pins, for different versions of Python."""
    hashes: frozenset[str]


def read(text: str) -> dict[str, list[Pin]]:
    """Return a dict from the normalized name of each distribution in a lock to the distribution's pins."""
    pins: dict[str, list[Pin]] = {}
    for block in _blocks(text):
        if found := _PIN.match(block):
            name = normalized(found["name"])
            pin = Pin(name, found["version"], found["marker"], frozenset(_HASH.findall(block)))
            pins.setdefault(name, []).append(pin)
    return pins


def without(text: str, names: Collection[str]) -> str:
    """Return the lock without the distributions in `names`."""
    kept = [block for block in _blocks(text) if not ((pin := _PIN.match(block)) and normalized(pin["name"]) in names)]
    return "".join(kept)


def normalized(name: str) -> str:
    """Return the name of a distribution in the normalized form of PyPI."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _blocks(text: str) -> Iterator[str]:
    """Yield the block of lines of each distribution. A line that begins with a letter or digit starts a new block."""
    return iter(re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE))
