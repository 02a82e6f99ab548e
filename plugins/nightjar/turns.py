"""Turns: runs of a pipeline that may promote a model work one at a time, so that each faces the latest champion.

`Pipeline.lock` is a file that names the run that has the turn. The run writes the file before it has a cluster, and the
run's last task ends the turn. A waiting run takes over a turn that has expired or whose run is over. So a run that was
killed does not block the others. All changes are conditional writes: if several runs take the turn at once, only one
succeeds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.errors import reading
from jobs.lake.layout import Pipeline, Run
from jobs.lake.store import Store
from jobs.lake.strict_json import to_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Turn:
    """The content of a turn's file."""

    run: str
    """The folder of the run that has the turn, below `Lake.runs`."""
    dag_id: str
    run_id: str
    since: datetime
    expires: datetime
    """When the turn expires unless the run renews it. Then another run may take it over."""
    ended: datetime | None = None
    """When the run ended its turn."""

    def is_free(self, run: Run, now: datetime) -> bool:
        """Return whether `run` may take the turn, judged by this file alone."""
        return self.run == run.folder or self.ended is not None or self.expires <= now

    def __str__(self) -> str:
        return f"run {self.run_id} of the DAG {self.dag_id}, whose turn began at {self.since:%Y-%m-%d %H:%M} UTC"


def read_turn(pipeline: Pipeline, store: Store) -> tuple[Turn | None, str]:
    """Return the turn of a pipeline and the version of its file. Return None and "" if no run has had a turn."""
    try:
        data, version = store.read_version(pipeline.lock)
    except FileNotFoundError:
        return None, ""
    with reading(pipeline.lock, "delete it if no run of this pipeline is in progress"):
        values: dict[str, Any] = json.loads(data)
        times: dict[str, Any] = {name: datetime.fromisoformat(values.pop(name)) for name in ("since", "expires")}
        ended = values.pop("ended")
        turn = Turn(**values, **times, ended=datetime.fromisoformat(ended) if ended else None)
        if turn.since.tzinfo is None or turn.expires.tzinfo is None:
            raise ValueError("a time without a zone")
        return turn, version


def take(
    run: Run,
    dag_id: str,
    life: timedelta,
    store: Store,
    is_over: Callable[[Turn], bool],
    now: datetime | None = None,
) -> Turn | None:
    """Take the turn of the run's pipeline, or renew it if the run has it.

    Args:
        run: The run.
        dag_id: Its DAG.
        life: How long the turn lasts unless it is renewed or ended.
        store: The store of the lake.
        is_over: Called with a turn. Returns True if the run that has the turn is known to be over. Such a run may have
            stopped without ending its turn.
        now: The current time.

    Returns:
        None if the run has the turn now, else the turn of another run.
    """
    pipeline, now = Pipeline.of(run), now or datetime.now(UTC)
    while True:
        found, version = read_turn(pipeline, store)
        mine = Turn(run.folder, dag_id, run.run_id, now, now + life)
        if found is None:
            if store.publish(pipeline.lock, _to_json(mine, pipeline)):
                return None
            continue
        if not found.is_free(run, now) and not is_over(found):
            return found
        if found.run == run.folder and found.ended is None:
            mine = replace(mine, since=found.since)
        elif found.ended is None:
            log.warning("Taking over the turn of %s: that run is over, or had the turn until %s", found, found.expires)
        with suppress(FileNotFoundError):  # the file was deleted in the meantime
            if store.replace(pipeline.lock, _to_json(mine, pipeline), version):
                return None


def end(run: Run, store: Store, now: datetime | None = None) -> None:
    """End the turn of a run. Do nothing if the run does not have the turn."""
    pipeline = Pipeline.of(run)
    found, version = read_turn(pipeline, store)
    if found is not None and found.run == run.folder and found.ended is None:
        store.replace(pipeline.lock, _to_json(replace(found, ended=now or datetime.now(UTC)), pipeline), version)


def _to_json(turn: Turn, pipeline: Pipeline) -> bytes:
    times = {name: value.isoformat() for name, value in asdict(turn).items() if isinstance(value, datetime)}
    return to_json({**asdict(turn), **times}, pipeline.lock)
