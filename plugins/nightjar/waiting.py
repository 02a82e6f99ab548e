"""The operator and the trigger with which a run waits for its turn, without occupying a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from jobs.config import Config, of_run
from jobs.errors import NightjarError
from jobs.lake.layout import Pipeline, Run
from jobs.lake.store import Store
from jobs.results.summary import Status, read_summary
from nightjar import aws, links, settings, turns
from nightjar.emr.requests import time_to_live
from nightjar.errors import FinalError, StepFailedError, message_of
from nightjar.runs import located_run
from nightjar.turns import Turn

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

MARGIN = timedelta(hours=1)
"""How much longer a turn lasts than a cluster may live. The tasks that run without the cluster need this time."""
ACTIVE = ["queued", "running"]


class TakeTurnOperator(BaseOperator):
    """Wait until no other run that may promote a model is in progress in the pipeline, then take the turn.

    Some runs cannot promote a model: experiments, and runs that train no model. These runs take no turn, and do not
    wait.

    Args:
        wait_hours: Time limit of the wait.
    """

    operator_extra_links = (links.RUN_FOLDER,)

    def __init__(self, *, wait_hours: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wait_hours = wait_hours

    def execute(self, context: Context) -> str:
        """Take the turn if the run needs one, after waiting if necessary. Return a text that says who has the turn."""
        if not _config(context).promotes:
            return "this run needs no turn"
        return self._take(context, datetime.now(UTC) + timedelta(hours=self.wait_hours))

    def again(self, context: Context, event: Any, limit: str) -> str:
        """Take the turn after a wait, or wait again if another run was faster."""
        self.log.info("%s", event)
        return self._take(context, datetime.fromisoformat(limit))

    def _take(self, context: Context, limit: datetime) -> str:
        holder = take_turn(context)
        if holder is None:
            return "this run"
        if datetime.now(UTC) >= limit:
            raise FinalError(
                f"waited {self.wait_hours:g} h for {holder}; end that run, or clear this task when it has ended"
            )
        self.log.info(
            "Waiting for %s, until %s UTC at the latest", holder, f"{min(limit, holder.expires):%Y-%m-%d %H:%M}"
        )
        run, settled = _run(context), settings.load()
        self.defer(
            trigger=TurnTrigger(
                lake_uri=run.lake_uri,
                folder=run.folder,
                limit=limit.isoformat(),
                poll_seconds=settled.poll_seconds,
                project=settled.project,
            ),
            method_name="again",
            kwargs={"limit": limit.isoformat()},
        )


class TurnTrigger(BaseTrigger):
    """Trigger that fires when a run may take the turn of its pipeline, or has waited for too long.

    Args:
        lake_uri: The lake.
        folder: The folder of the run below `Lake.runs`.
        limit: The end of the wait, in ISO 8601 format.
        poll_seconds: Seconds between two reads of the turn.
        project: The project of this Airflow. Airflow knows the state of this project's runs only.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # untyped in Airflow
        self._arguments = arguments
        self._run = Run(arguments["lake_uri"], arguments["folder"])

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments with which a triggerer recreates this trigger."""
        return "nightjar.waiting.TurnTrigger", self._arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the turn until it may be taken, then yield an event that says why the wait ended.

        Errors of the lake do not end the wait.
        """
        store, limit = Store(cache(aws.connect_s3), retry_seconds=0), datetime.fromisoformat(self._arguments["limit"])
        seen = ""
        while datetime.now(UTC) < limit:
            try:
                turn = await sync_to_async(self._holder)(store)
            except (OSError, NightjarError) as error:
                self.log.warning("The turn cannot be read: %s", message_of(error))
            else:
                if turn is None:
                    yield TriggerEvent(f"the turn is free{f'; before, it was the turn of {seen}' if seen else ''}")  # type: ignore[no-untyped-call] # untyped in Airflow
                    return
                if str(turn) != seen:
                    seen = str(turn)
                    self.log.info("Waiting for %s", seen)
            await asyncio.sleep(self._arguments["poll_seconds"])
        yield TriggerEvent("the time limit of the wait is reached")  # type: ignore[no-untyped-call] # untyped in Airflow

    def _holder(self, store: Store) -> Turn | None:
        """Return the turn of the run that this run must wait for. Return None if this run may take the turn."""
        turn, _ = turns.read_turn(Pipeline.of(self._run), store)
        if turn is None or turn.is_free(self._run, datetime.now(UTC)):
            return None
        return None if is_over(turn, self._arguments["lake_uri"], self._arguments["project"], store) else turn


def take_turn(context: Context) -> Turn | None:
    """Take or renew the turn for a task's run, and return None. If another run has the turn, return that turn.

    A run that cannot promote a model takes no turn: return None.
    """
    run, store, project = _run(context), aws.store(), settings.load().project
    config = _config(context)
    if not config.promotes:
        return None
    return turns.take(
        run,
        context["ti"].dag_id,
        time_to_live(config) + MARGIN,
        store,
        lambda turn: is_over(turn, run.lake_uri, project, store),
    )


def renew_turn(context: Context) -> None:
    """Take or renew the turn. If another run has it, log a warning: this run continues, but `promote` may fail."""
    if (holder := take_turn(context)) is not None:
        log.warning("The turn of this run has expired. Now %s has the turn", holder)


def hold_turn(context: Context) -> None:
    """Take or renew the turn without waiting. If another run has it, raise StepFailedError, which names that run."""
    if (holder := take_turn(context)) is not None:
        raise StepFailedError(f"{holder} has the turn; clear this task when that run has ended")


def end_turn(context: Context) -> None:
    """End the turn of a task's run. If this fails, log a warning: the turn expires, and no other error is hidden."""
    try:
        turns.end(_run(context), aws.store())
    except (OSError, NightjarError) as error:
        log.warning("The turn could not be ended (%s); it will expire", message_of(error))


def _run(context: Context) -> Run:
    return located_run(context["ti"].dag_id, str(context["run_id"]))


def _config(context: Context) -> Config:
    return of_run.read_config(_run(context), aws.store())


def is_over(turn: Turn, lake_uri: str, project: str, store: Store) -> bool:
    """Return whether the run of a turn is over.

    Airflow knows the state of the runs of its own project. A run of another project counts as over only if the lake
    shows that it failed. A run that succeeded has ended its turn itself. If it could not end its turn, or if the state
    of a run cannot be read, the run counts as in progress, and others wait until its turn expires.
    """
    run = Run(lake_uri, turn.run)
    if run.project != project:
        return read_summary(run, store).status is Status.FAILED
    from airflow.sdk.execution_time import task_runner  # noqa: PLC0415 - for tasks and triggers alone

    if not hasattr(task_runner, "SUPERVISOR_COMMS"):  # outside of Airflow
        return False
    try:
        found = task_runner.RuntimeTaskInstance.get_dr_count(dag_id=turn.dag_id, run_ids=[turn.run_id], states=ACTIVE)
    except (AirflowRuntimeError, AirflowException, OSError) as error:
        log.warning("Cannot find out whether %s is over (%s: %s)", turn, type(error).__name__, error)
        return False
    return found == 0
