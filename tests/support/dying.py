"""A process that dies between two changes of a local lake."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

_CHANGES = frozenset({"os.rename", "os.link", "os.remove", "os.rmdir"})
"""Python's audit events of calls that change the names of files. A lake's files get theirs when they are complete."""


class Death(BaseException):
    """The end of a process. Nothing that it does afterwards takes effect."""


class _Process:
    left = inf


def _before(event: str, _: Any) -> None:
    if _Process.left < inf and event in _CHANGES:
        if _Process.left <= 0:
            raise Death
        _Process.left -= 1


sys.addaudithook(_before)


@contextmanager
def dying_after(changes: int) -> Iterator[None]:
    """Have everything in the block die before it changes one more name; `Death` is raised then."""
    _Process.left = changes
    try:
        yield
    finally:
        _Process.left = inf
