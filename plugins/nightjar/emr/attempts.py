"""The attempts at one step of a run: number them, submit them, and find a step whose submission was interrupted.

AddJobFlowSteps has no client token, and EMR may carry a request out seconds after the process that sent it was killed.
So a file in the attempt's folder is written before the request, and completed with the step's id afterwards. If the
file has no id, the next try of the Airflow task waits for the requested step instead of submitting it a second time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from jobs.errors import reading
from jobs.lake.layout import Run
from jobs.lake.store import Store
from nightjar.emr import steps
from nightjar.errors import is_refusal, message_of

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

SETTLE_SECONDS = 60.0
"""How long a request may still take effect after it was sent."""


@dataclass(frozen=True)
class Submission:
    """The request for an attempt at a step, and EMR's answer: the content of ``submitted.json``."""

    cluster_id: str
    asked: str
    """When the step was requested, as a time in ISO 8601 format."""
    step_id: str | None = None
    refused: str | None = None
    """Why there is no step: EMR's message, or a note that EMR listed no step in time."""

    @property
    def is_open(self) -> bool:
        """Whether the answer to AddJobFlowSteps is not known yet."""
        return self.step_id is None and self.refused is None


class Attempts:
    """The attempts at the step called `name` of a run."""

    def __init__(self, client: EMRClient, store: Store, run: Run, name: str) -> None:
        self._client = client
        self._store = store
        self._run = run
        self._name = name

    def find(self, cluster_id: str, poll_seconds: float) -> str | None:
        """Return the id of an attempt's step that is pending or running on a cluster, or None if there is none.

        If the last try of the Airflow task was interrupted after it requested a step, wait until EMR lists this step,
        up to `SETTLE_SECONDS` after the request. Then return the step's id, even if the step has already ended.
        """
        if active := steps.active_steps(self._client, cluster_id, self._run, self._name):
            return active[0]
        recorded = self._recorded()
        asked = self._read(max(recorded)) if recorded else None
        if asked is None or not asked.is_open or asked.cluster_id != cluster_id:
            return None
        return self._await_answer(max(recorded), asked, poll_seconds)

    def next_number(self, cluster_ids: Iterable[str]) -> int:
        """Return the number of the next attempt.

        It is larger than the number of every attempt that has a step on the run's clusters, in any state, or a folder
        in the lake. So it does not depend on Airflow's database.
        """
        submitted = steps.attempt_numbers(self._client, cluster_ids, self._run, self._name)
        return 1 + max(len(submitted), *submitted, *self._recorded(), 0)

    def submit(self, number: int, request: Mapping[str, Any]) -> str:
        """Submit an attempt with an AddJobFlowSteps request, and return the step's id."""
        asked = Submission(request["JobFlowId"], datetime.now(UTC).isoformat(timespec="seconds"))
        self._write(number, asked)
        try:
            step_id = steps.submit_step(self._client, request)
        except ClientError as error:
            if is_refusal(error):
                self._write(number, replace(asked, refused=message_of(error)))
            raise
        self._write(number, replace(asked, step_id=step_id))
        return steps.keep_first(self._client, asked.cluster_id, self._run, self._name, step_id)

    def _await_answer(self, number: int, asked: Submission, poll_seconds: float) -> str | None:
        age = (datetime.now(UTC) - datetime.fromisoformat(asked.asked)).total_seconds()
        deadline = time.monotonic() + min(SETTLE_SECONDS - age, SETTLE_SECONDS)
        while True:
            step_id = steps.find_attempt(self._client, asked.cluster_id, self._run, self._name, number)
            if step_id is not None:
                log.info("The request AddJobFlowSteps of %s has created step %s", asked.asked, step_id)
                self._write(number, replace(asked, step_id=step_id))
                return step_id
            if time.monotonic() > deadline:
                seen = f"no answer, and EMR listed no such step for {SETTLE_SECONDS:g} s"
                log.warning("The request AddJobFlowSteps of %s counts as failed: %s", asked.asked, seen)
                self._write(number, replace(asked, refused=seen))
                return None
            log.info("Waiting for the answer to the request AddJobFlowSteps of %s", asked.asked)
            time.sleep(min(poll_seconds, 5.0))

    def _recorded(self) -> list[int]:
        """Return the numbers of the attempts that have a folder in the lake."""
        folders = self._store.list_folders(self._run.step_attempts(self._name))
        return [int(folder) for folder in folders if folder.isascii() and folder.isdigit()]

    def _read(self, number: int) -> Submission | None:
        uri = self._run.submission(self._name, number)
        try:
            with reading(uri, "delete it, and look for this step in the EMR console"):
                found = Submission(**self._store.read_json(uri))
                datetime.fromisoformat(found.asked)
        except FileNotFoundError:
            return None
        return found

    def _write(self, number: int, submission: Submission) -> None:
        self._store.write_json(self._run.submission(self._name, number), asdict(submission))
