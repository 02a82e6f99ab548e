"""The interface of the engines, which run the functions of the pipeline steps."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from jobs.errors import NightjarError
from jobs.metrics.stats import ExecutorRow, StageRow

Item = TypeVar("Item")
Result = TypeVar("Result")

CAUSE_SECONDS = 2.0
"""Seconds that a worker waits before it raises an error. Another worker's end may have caused this error.

The driver then receives the other worker's error first.
"""


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1 << 16
    return min(os.cpu_count() or 1, allowed)


def crash_report_file() -> str | None:
    """Return the file from which Spark reads the crash report of this Python worker. Return None outside of Spark."""
    folder = os.environ.get("PYTHON_FAULTHANDLER_DIR")
    return os.path.join(folder, str(os.getpid())) if folder else None  # noqa: PTH118 - a str, as in `WorkerContext`


@dataclass(frozen=True)
class WorkerContext:
    """A worker's place in its worker group, and its means to reach the other workers."""

    rank: int
    threads: int
    """The number of cores that this worker may use."""
    hosts: Sequence[str]
    """Host names of all workers, by rank."""
    all_gather: Callable[[str], list[str]]
    """Send a text to all workers, wait for the texts of the others, and return all texts by rank.

    On Spark a call takes a second.
    """
    crash_report: str | None = None
    """Local file whose content the engine reports if this worker is killed or crashes."""

    @property
    def local_rank(self) -> int:
        """This worker's number among the workers on its machine."""
        return list(self.hosts[: self.rank]).count(self.hosts[self.rank])

    @property
    def world_size(self) -> int:
        """The number of workers in the group."""
        return len(self.hosts)


def single_worker(threads: int) -> WorkerContext:
    """Return the context of a worker that is alone in its group and runs in this process."""
    return WorkerContext(0, threads, [socket.gethostname()], lambda text: [text])


def run_worker(function: Callable[[WorkerContext], Result], context: WorkerContext) -> Result:
    """Run `function` as one worker of a group.

    The first error that reaches the driver ends the group. An error that is not a `NightjarError`, such as a lost
    connection, is often the effect of another worker's end. So it is raised only after `CAUSE_SECONDS`.
    """
    try:
        return function(context)
    except NightjarError:
        raise
    except Exception:
        if context.world_size > 1:
            time.sleep(CAUSE_SECONDS)
        raise


class Engine(Protocol):
    """Runs functions. Functions and their arguments must be picklable, since they may be sent to other machines."""

    name: str

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
        """Apply `function` to each item, in parallel where there are slots; return the results in the order of `items`.

        Raises:
            NightjarError: the error that `function` raised for the first item that failed.
        """

    def task_threads(self, num_tasks: int) -> int:
        """Return how many threads each of `num_tasks` tasks of a `map` may use, so that together they use all cores."""

    def run_worker_group(self, function: Callable[[WorkerContext], Result], workers: int, description: str) -> Result:
        """Run `function` in `workers` tasks at the same time and return the result of rank 0.

        Raises:
            NightjarError: the error that a worker raised, if it raised a `NightjarError`.
            WorkerLostError: if a worker was killed, crashed, or raised an error of another type.
        """

    def stages(self) -> list[StageRow]:
        """Return one row of metrics for each Spark stage so far: the columns of ``spark.csv``.

        The column `epoch` is read from the stage's description, such as ``steps 1 to 30, to epoch 1.5``. It is 0 if
        the description names no epoch.
        """

    def executors(self) -> list[ExecutorRow]:
        """Return one row of metrics for each Spark executor: the columns of ``executors.csv``."""
