"""Decides whether a run of a DAG is in progress while no program holds the run's lock.

Before its first step and between two steps, a run waits for its cluster or for Airflow, and no program holds its lock.
Two signs in the run's folder show that such a run is in progress: the record of a cluster that has not ended, and a
file that was written a moment ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from jobs.lake.identity import LOCAL
from jobs.lake.layout import Run

START_SECONDS = 3600.0
"""A run with a cluster counts as in progress for this many seconds after the last sign of progress. A step
that has not started by then is abandoned."""
PAUSE_SECONDS = 300.0
"""A run without a cluster of its own counts as in progress for this many seconds after the last sign of progress."""


def is_under_way(
    run: Run,
    clusters: Iterable[Mapping[str, Any]],
    written: Iterable[float | None],
    now: float,
    failed_at: float | None = None,
) -> bool:
    """Return whether a run with unfinished steps is in progress, although no program holds the run's lock.

    Args:
        run: The run.
        clusters: The records of the run's clusters.
        written: For some files of the run, the time of the last change in seconds since 1970; None for a missing file.
        now: The current time, in seconds since 1970.
        failed_at: When the run's DAG failed, in seconds since 1970; None if it did not. After a failure, only
            a cluster that was requested later shows that the run was started again.
    """
    if run.pipeline in ("", LOCAL):  # one process runs all steps, and holds the lock all the time
        return False
    own = [each for each in clusters if not any(each.get(key) for key in ("borrowed", "dropped", "refused"))]
    asked = [seconds_of(each.get("asked")) or 0.0 for each in own if not each.get("ended")]
    if failed_at is not None:
        return max(asked, default=0.0) > max(failed_at, now - START_SECONDS)
    if own and not asked:  # the run has ended its cluster
        return False
    signs = [*asked, *(each for each in written if each is not None)]
    return max(signs, default=0.0) > now - (START_SECONDS if asked else PAUSE_SECONDS)


def seconds_of(moment: Any) -> float | None:
    """Return an ISO 8601 time as seconds since 1970. Return None if `moment` is not such a time."""
    with suppress(ValueError, TypeError, OverflowError):
        return datetime.fromisoformat(moment).timestamp()
    return None
