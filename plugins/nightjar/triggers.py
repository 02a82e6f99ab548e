"""Waits for a step in Airflow's triggerer, which holds no worker meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async
from botocore.exceptions import BotoCoreError, ClientError

from nightjar import aws
from nightjar.emr import requests
from nightjar.storage import open_storage

START_LIMIT_SECONDS = 3600.0
"""How long a step may wait for its cluster to start, beside its own limit."""


@dataclass(frozen=True)
class Watch:
    """The step to wait for, how often to look, how long it may run, and where it says how far it is."""

    cluster_id: str
    step_id: str
    progress_uri: str
    poll_seconds: float
    limit_seconds: float


class StepTrigger(BaseTrigger):
    """Fires when a step has ended or is overdue; cancels it when a user ends or clears the task."""

    def __init__(self, **watch: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow left it without types
        self._watch = Watch(**watch)
        self._message = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What makes this trigger anew in a triggerer."""
        return "nightjar.triggers.StepTrigger", asdict(self._watch)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the step until it has ended; its state, or ``OVERDUE``, is the event."""
        watch, storage = self._watch, open_storage(self._watch.progress_uri)
        read = sync_to_async(storage.read)
        state = ""
        async with await aws.async_emr_client() as client:
            while True:
                found = await client.describe_step(ClusterId=watch.cluster_id, StepId=watch.step_id)
                step = found["Step"]
                if step["Status"]["State"] != state:
                    state = step["Status"]["State"]
                    self.log.info("Step %s (%s): %s", step["Name"], watch.step_id, state)
                await self._tell_progress(read)
                if state not in requests.LIVE_STEP:
                    break
                if requests.overdue(step, datetime.now(UTC), watch.limit_seconds, START_LIMIT_SECONDS):
                    state = "OVERDUE"
                    break
                await asyncio.sleep(watch.poll_seconds)
        yield TriggerEvent({"step_id": watch.step_id, "state": state})  # type: ignore[no-untyped-call] # Airflow left it without types

    async def on_kill(self) -> None:
        """Cancel the step: a user marked the task or cleared it."""
        self.log.info("Cancelling step %s", self._watch.step_id)
        async with await aws.async_emr_client() as client:
            await client.cancel_steps(**requests.cancel_step(self._watch.cluster_id, self._watch.step_id))

    async def _tell_progress(self, read: Any) -> None:
        """Log the step's own words on how far it is, when they are new. That they are missing is no error."""
        try:
            message = str(json.loads(await read(self._watch.progress_uri)).get("message", ""))
        except (OSError, ValueError, AttributeError, BotoCoreError, ClientError):
            return
        if message and message != self._message:
            self._message = message
            self.log.info("%s", message)
