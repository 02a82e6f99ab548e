"""A member of a gang: one of several tasks that run at the same time and talk to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """What a task of a gang knows about itself.

    `all_gather` sends a text to all members, waits for theirs and returns them by rank. `threads` is the number of
    cores that this task may use. What stands in `last_words`, a local file, is reported if this member dies.
    """

    rank: int
    world_size: int
    threads: int
    host: str
    all_gather: Callable[[str], list[str]]
    last_words: str | None = None
