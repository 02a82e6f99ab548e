"""A member of a gang: one of several tasks that run at the same time and talk to each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


def num_cores() -> int:
    """The cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1 << 16
    return min(os.cpu_count() or 1, allowed)


def last_words_file() -> str | None:
    """Where Spark looks for what a Python worker left that died; None outside of Spark's workers."""
    folder = os.environ.get("PYTHON_FAULTHANDLER_DIR")
    return os.path.join(folder, str(os.getpid())) if folder else None  # noqa: PTH118 - text, as a `Member` has it


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
