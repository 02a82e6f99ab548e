"""A member of a gang: one of several tasks that run at the same time and talk to each other."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
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

    `threads` is the number of cores that this task may use. `hosts` are the machines of all members, by rank.
    `all_gather` sends a text to all members, waits for theirs and returns them by rank; on Spark it takes a second.
    What stands in `last_words`, a local file, is reported if this member dies.
    """

    rank: int
    threads: int
    hosts: Sequence[str]
    all_gather: Callable[[str], list[str]]
    last_words: str | None = None

    @property
    def world_size(self) -> int:
        """Members of the gang."""
        return len(self.hosts)


def alone(threads: int) -> Member:
    """The only member of a gang, in this process."""
    return Member(0, threads, [socket.gethostname()], lambda text: [text])
