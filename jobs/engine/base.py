"""What a step may ask of the place where it runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_cores() -> int:
    """The cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1 << 16
    return min(os.cpu_count() or 1, allowed)


def crash_report_file() -> str | None:
    """Where Spark looks for what a Python worker left that died; None outside of Spark's workers."""
    folder = os.environ.get("PYTHON_FAULTHANDLER_DIR")
    return os.path.join(folder, str(os.getpid())) if folder else None  # noqa: PTH118 - text, as a `WorkerContext` has it


@dataclass(frozen=True)
class WorkerContext:
    """What a task of a gang knows about itself.

    `threads` is the number of cores that this task may use. `hosts` are the machines of all members, by rank.
    `all_gather` sends a text to all members, waits for theirs and returns them by rank; on Spark it takes a second.
    What stands in `crash_report`, a local file, is reported if this member dies.
    """

    rank: int
    threads: int
    hosts: Sequence[str]
    all_gather: Callable[[str], list[str]]
    crash_report: str | None = None

    @property
    def world_size(self) -> int:
        """Members of the gang."""
        return len(self.hosts)


def single_worker(threads: int) -> WorkerContext:
    """The only member of a gang, in this process."""
    return WorkerContext(0, threads, [socket.gethostname()], lambda text: [text])


class Engine(Protocol):
    """Runs functions. They and their arguments must be picklable: they may travel to other machines."""

    name: str

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
        """Apply `function` to each item, in parallel where there are slots; results in the order of `items`.

        Raises:
            NightjarError: the one that `function` raised, for the first item that failed.
        """

    def task_threads(self, num_tasks: int) -> int:
        """How many threads each of `num_tasks` tasks of a `map` may use, so that together they use every core."""

    def run_worker_group(self, function: Callable[[WorkerContext], Result], workers: int, description: str) -> Result:
        """Run `function` as `workers` tasks at the same time and return the result of rank 0.

        Raises:
            WorkerLostError: if a task died or failed for another reason than a `NightjarError`.
            NightjarError: the one that a task raised.
        """

    def stages(self) -> list[dict[str, Any]]:
        """Figures of the work done so far, one row for each stage; the columns of ``spark.csv``.

        A description in which ``epoch 1.5`` stands gives its stages this epoch; others have 0.
        """

    def executors(self) -> list[dict[str, Any]]:
        """Figures of those that did the work, one row for each; the columns of ``executors.csv``."""
