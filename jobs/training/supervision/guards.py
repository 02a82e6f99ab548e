"""What watches over a worker while it trains: a deadline for its steps, and a notice that it is to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.engine.base import WorkerContext
from jobs.lake.layout import Run
from jobs.training.supervision.shutdown import Notice, noticed
from jobs.training.supervision.watchdog import Watchdog, watched


@dataclass(frozen=True)
class Guards:
    """A worker's `watchdog`, to which it says what it does, and the `notice`, which says whether it is to end."""

    watchdog: Watchdog
    notice: Notice


@contextmanager
def guarded(member: WorkerContext, run: Run, step_timeout_seconds: float) -> Iterator[Guards]:
    """Watch over this worker while inside."""
    with (
        watched(member.rank, step_timeout_seconds, member.crash_report) as watchdog,
        noticed(run, member.rank == 0) as notice,
    ):
        yield Guards(watchdog, notice)
