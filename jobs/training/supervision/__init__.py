"""Supervision of a training worker: a deadline for each step, and requests to shut down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.engine.base import WorkerContext
from jobs.lake.layout import Run
from jobs.training.supervision.shutdown import ShutdownSignal, receive
from jobs.training.supervision.watchdog import Watchdog, watch


@dataclass(frozen=True)
class Supervision:
    """The watchdog of a worker, and the signal that asks it to shut down."""

    watchdog: Watchdog
    shutdown: ShutdownSignal


@contextmanager
def supervise(context: WorkerContext, run: Run, step_timeout_seconds: float) -> Iterator[Supervision]:
    """Supervise this worker inside the context."""
    with (
        watch(context.rank, step_timeout_seconds, context.crash_report) as watchdog,
        receive(run, is_first=context.rank == 0) as shutdown,
    ):
        yield Supervision(watchdog, shutdown)
