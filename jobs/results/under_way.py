"""Whether a run of a DAG is under way while no program holds its lock.

Between two of its steps, and before the first one, a run waits for its cluster or for Airflow. Its files say so: the
record of a cluster that has not ended, or a file that was written a moment ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from jobs.lake.identity import LOCAL
from jobs.lake.layout import Run

START_SECONDS = 3600.0
"""Longest time without a sign of a run that has a cluster: a step that has not started after an hour is given up."""
PAUSE_SECONDS = 300.0
"""Longest time without a sign of a run that has no cluster of its own yet."""


def is_under_way(
    run: Run,
    clusters: Iterable[Mapping[str, Any]],
    written: Iterable[float | None],
    now: float,
    failed_at: float | None = None,
) -> bool:
    """Return whether a run whose steps have not all ended goes on by itself, though nobody holds its lock.

    Args:
        run: The run.
        clusters: The records of its clusters.
        written: When its files were changed, in seconds since 1970; None for a missing one.
        now: The present moment.
        failed_at: When its DAG failed. Only a cluster that was asked for later shows that it was started again.
    """
    if run.pipeline in ("", LOCAL):  # a process runs all of its steps, and holds the lock meanwhile
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
    """Return a time in ISO format as seconds since 1970; None if it is no such time."""
    with suppress(ValueError, TypeError, OverflowError):
        return datetime.fromisoformat(moment).timestamp()
    return None
