"""An Airflow trigger that waits for an EMR step without occupying a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from jobs.lake.store import Store
from nightjar import aws
from nightjar.emr import requests
from nightjar.errors import AWS_ERRORS, may_pass, message_of

Ending = Literal["ended", "overdue", "not started", "not seen"]


@dataclass(frozen=True)
class WatchedStep:
    """The arguments of a `StepTrigger`."""

    cluster_id: str
    step_id: str
    progress_uri: str
    """The JSON file in which the step reports its progress."""
    poll_seconds: float
    limit_seconds: float
    """Time limit of the step, from its start."""


class StepTrigger(BaseTrigger):
    """Trigger that fires when an EMR step has ended or exceeded its time limit."""

    def __init__(self, **step: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # untyped in Airflow
        self._step = WatchedStep(**step)
        self._message = ""
        self._state = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments with which a triggerer recreates this trigger."""
        return "nightjar.triggers.StepTrigger", asdict(self._step)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the step until it ends, then yield an event that says why the wait ended (`Ending`).

        A fault that may pass, such as throttling, does not end the wait.
        """
        watched, read = self._step, sync_to_async(Store(cache(aws.connect_s3), retry_seconds=0).read_bytes)
        now = datetime.now(UTC)
        seen: dict[str, Any] = {"Status": {"State": "PENDING", "Timeline": {"CreationDateTime": now}}}
        ending: Ending | None = None
        error = ""
        async with await aws.async_emr_client() as client:
            while ending is None:
                try:
                    found = await client.describe_step(ClusterId=watched.cluster_id, StepId=watched.step_id)
                    seen = found["Step"]
                except AWS_ERRORS as fault:
                    error = message_of(fault)
                    self.log.warning("The state of step %s cannot be read: %s", watched.step_id, error)
                    ending = None if may_pass(fault) else "not seen"
                self._log_state(seen)
                await self._log_progress(read)
                ending = ending or _ending(seen, watched.limit_seconds)
                if ending is None:
                    await asyncio.sleep(watched.poll_seconds)
        about = {"cluster_id": watched.cluster_id, "step_id": watched.step_id, "state": self._state}
        yield TriggerEvent({**about, "ending": ending, "error": error})  # type: ignore[no-untyped-call] # untyped in Airflow

    async def on_kill(self) -> None:
        """Cancel the step. Airflow calls this when a user marks or clears the task."""
        self.log.info("Cancelling step %s", self._step.step_id)
        async with await aws.async_emr_client() as client:
            await client.cancel_steps(**requests.cancel_steps(self._step.cluster_id, [self._step.step_id]))

    def _log_state(self, step: dict[str, Any]) -> None:
        if step["Status"]["State"] != self._state:
            self._state = step["Status"]["State"]
            self.log.info("Step %s (%s): %s", step.get("Name", ""), self._step.step_id, self._state)

    async def _log_progress(self, read: Any) -> None:
        """Log the step's progress message if it is new. A step that has not reported yet is not an error."""
        try:
            message = str(json.loads(await read(self._step.progress_uri)).get("message", ""))
        except (OSError, ValueError, AttributeError):
            return
        if message and message != self._message:
            self._message = message
            self.log.info("%s", message)


def _ending(step: dict[str, Any], limit_seconds: float) -> Ending | None:
    """Return why the wait for a step ends, or None if it continues."""
    if step["Status"]["State"] not in requests.ACTIVE_STEP_STATES:
        return "ended"
    if requests.is_overdue(step, datetime.now(UTC), limit_seconds, requests.START_LIMIT_SECONDS):
        return "overdue" if step["Status"]["Timeline"].get("StartDateTime") else "not started"
    return None
