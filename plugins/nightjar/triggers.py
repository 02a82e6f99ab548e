"""An Airflow trigger that waits for an EMR step without occupying a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from jobs.lake.store import Store
from nightjar import aws
from nightjar.emr import requests

START_LIMIT_SECONDS = 3600.0
"""Time limit for a step to start, which includes the start of its cluster. It is apart from the step's own limit."""


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

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments with which a triggerer recreates this trigger."""
        return "nightjar.triggers.StepTrigger", asdict(self._step)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the step until it has ended. The event has its id and its state, or ``OVERDUE`` past the time limit."""
        watched, read = self._step, sync_to_async(Store(cache(aws.connect_s3), retry_seconds=0).read_bytes)
        state = ""
        async with await aws.async_emr_client() as client:
            while True:
                found = await client.describe_step(ClusterId=watched.cluster_id, StepId=watched.step_id)
                step = found["Step"]
                if step["Status"]["State"] != state:
                    state = step["Status"]["State"]
                    self.log.info("Step %s (%s): %s", step["Name"], watched.step_id, state)
                await self._log_progress(read)
                if state not in requests.ACTIVE_STEP_STATES:
                    break
                if requests.is_overdue(step, datetime.now(UTC), watched.limit_seconds, START_LIMIT_SECONDS):
                    state = "OVERDUE"
                    break
                await asyncio.sleep(watched.poll_seconds)
        yield TriggerEvent({"step_id": watched.step_id, "state": state})  # type: ignore[no-untyped-call] # untyped in Airflow

    async def on_kill(self) -> None:
        """Cancel the step. Airflow calls this when a user marks or clears the task."""
        self.log.info("Cancelling step %s", self._step.step_id)
        async with await aws.async_emr_client() as client:
            await client.cancel_steps(**requests.cancel_step(self._step.cluster_id, self._step.step_id))

    async def _log_progress(self, read: Any) -> None:
        """Log the step's progress message if it is new. A step that has not reported yet is not an error."""
        try:
            message = str(json.loads(await read(self._step.progress_uri)).get("message", ""))
        except (OSError, ValueError, AttributeError):
            return
        if message and message != self._message:
            self._message = message
            self.log.info("%s", message)
