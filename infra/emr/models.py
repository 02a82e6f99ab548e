"""Clusters and steps that run: moto's models, with one thread for each cluster.

The cluster's thread starts the cluster, runs its steps and ends it. API threads add steps, cancel them and request the
end of the cluster. Each cluster has one condition variable for this, which is not held while a step runs.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from moto.core.utils import utcnow
from moto.emr.exceptions import ValidationException
from moto.emr.models import Cluster, ElasticMapReduceBackend, Step

from infra.emr import guard
from infra.emr.command import read_spec
from infra.emr.execution import Execution, StepSpec
from infra.emr.logs import step_log_uri
from infra.emr.settings import ServerContext

log = logging.getLogger(__name__)

ENDED = frozenset({"TERMINATED", "TERMINATED_WITH_ERRORS"})
ENDING = ENDED | {"TERMINATING"}
NOT_MODIFIABLE = "A job flow that is shutting down, terminated, or finished may not be modified."
_STEP_MEMBERS = ("name", "hadoop_jar_step", "action_on_failure")


class LocalStep(Step):
    """A step of the API, with its execution once it runs."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        super().__init__("PENDING", **{key: request[key] for key in _STEP_MEMBERS if key in request})
        self.ended: datetime | None = None
        self.failure_details: dict[str, str] = {}
        self.message = ""
        self.execution: Execution | None = None
        self.cancelled = False

    @property
    def status(self) -> dict[str, Any]:
        """The status of moto, with the reason of the last state change and the details of a failure."""
        shown = super().status
        shown["Timeline"]["EndDateTime"] = self.ended
        shown["StateChangeReason"] = {"Message": self.message} if self.message else {}
        return {**shown, "FailureDetails": self.failure_details or None}

    def start(self) -> None:
        """Do nothing. moto calls this for the first step of a new cluster; here the cluster's thread starts steps."""

    def cancel(self) -> bool:
        """Cancel the step and return True, or return False if it has ended. The caller holds the condition."""
        if self.state == "PENDING":
            self.finish("CANCELLED", "Cancelled before it started")
        elif self.state == "RUNNING" and self.execution is not None:
            self.cancelled = True
            self.execution.stop()
        else:
            return False
        return True

    def finish(self, state: str, message: str = "") -> None:
        """Enter a final state."""
        self.state, self.message, self.ended = state, message, utcnow()


class LocalCluster(Cluster):
    """A cluster that runs its steps on this machine, one at a time."""

    def __init__(self, server: ServerContext, emr_backend: ElasticMapReduceBackend, **request: Any) -> None:
        self.server = server
        self.creator = threading.get_ident()
        self.changed = threading.Condition()
        self.idle_timeout_seconds: int | None = None
        self.reason: dict[str, str] = {}
        self._errors = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._running: LocalStep | None = None
        super().__init__(emr_backend, **request)  # calls methods that are overridden below

    @property
    def status(self) -> dict[str, Any]:
        """The status of moto, with the reason of the last state change."""
        return {**super().status, "StateChangeReason": self.reason}

    @property
    def launched(self) -> bool:
        """Whether the RunJobFlow request is complete and the cluster's thread has started."""
        return self._thread.ident is not None

    @property
    def _ending(self) -> bool:
        return self.state in ENDING

    def run_bootstrap_actions(self) -> None:
        """Do nothing. moto calls this in the constructor; the cluster's thread enters BOOTSTRAPPING after `launch`."""

    def launch(self) -> None:
        """Start the cluster's thread, when the RunJobFlow request has been recorded."""
        if self.step_concurrency_level > 1:
            given = self.step_concurrency_level
            log.warning("%s: StepConcurrencyLevel is %s, but the embedded EMR runs steps one at a time", self.id, given)
        self._thread.name = self.id
        self._thread.start()

    def add_steps(self, steps: Iterable[Mapping[str, Any]]) -> list[Step]:
        """Queue steps, unless the cluster is terminating or terminated."""
        with self.changed:
            if getattr(self, "state", None) in ENDING:
                raise ValidationException(NOT_MODIFIABLE)
            added: list[Step] = [LocalStep(step) for step in steps]
            self.steps.extend(added)
            self.changed.notify_all()
        return added

    def cancel_step(self, step_id: str) -> bool | None:
        """Cancel a step. Return whether it was still active; None if the cluster has no such step."""
        with self.changed:
            found = [step for step in self.local_steps if step.id == step_id]
            return found[0].cancel() if found else None

    @property
    def local_steps(self) -> list[LocalStep]:
        """The cluster's steps in the order of their submission."""
        return [step for step in self.steps if isinstance(step, LocalStep)]

    def terminate(self) -> None:
        """Terminate the cluster at a user's request. A running step is ended in the background."""
        with self.changed:
            self._end("USER_REQUEST", "Terminated by user request")

    def abandon(self) -> None:
        """Kill the running step without uploading its logs, and wait until no process of it is left."""
        with self.changed:
            self._end("INTERNAL_ERROR", "The embedded EMR was reset")
            running = self._running
        if running is not None and running.execution is not None:
            running.execution.stop(guard.KILL)
            running.execution.join()

    def join(self, timeout_seconds: float) -> None:
        """Wait until a terminating cluster has terminated."""
        if self.launched:
            self._thread.join(timeout_seconds)

    def wake(self) -> None:
        """Make the cluster's thread re-evaluate what to do, after a change of its settings."""
        with self.changed:
            self.changed.notify_all()

    def _run(self) -> None:
        self._start()
        while (step := self._next_step()) is not None:
            failure = self._execute(step)
            with self.changed:
                self._running = None
                self._record_end(step, failure)
        with self.changed:
            for group in self.instance_groups:
                group.state, group.end_date_time = "TERMINATED", utcnow()
            self.end_datetime = utcnow()
            self.state = "TERMINATED_WITH_ERRORS" if self._errors else "TERMINATED"
        log.info("%s %s: %s", self.id, self.state, self.reason["Message"])

    def _start(self) -> None:
        settings = self.server.settings
        with self.changed:
            log.info("%s STARTING: %s", self.id, self.name)
            self.changed.wait_for(lambda: self._ending, settings.start_seconds)
            if not self._ending:
                self.state = "BOOTSTRAPPING"
                log.info("%s BOOTSTRAPPING", self.id)
                self.changed.wait_for(lambda: self._ending, settings.bootstrap_seconds)
            if not self._ending:
                self.ready_datetime = utcnow()

    def _next_step(self) -> LocalStep | None:
        """Wait for a pending step and mark it RUNNING. Return None when the cluster is terminating."""
        idle_since = time.monotonic()
        with self.changed:
            while not self._ending:
                step = next((step for step in self.local_steps if step.state == "PENDING"), None)
                if step is not None:
                    self._begin(step)
                    return step
                if not self.keep_job_flow_alive_when_no_steps:
                    self._end("ALL_STEPS_COMPLETED", "Steps completed")
                    continue
                if self.state != "WAITING":
                    self.state, self.reason = "WAITING", {"Message": "Cluster ready to run steps."}
                    log.info("%s WAITING", self.id)
                self._wait_idle(idle_since)
        return None

    def _wait_idle(self, idle_since: float) -> None:
        """Wait for a change, or terminate the cluster if it has been idle for longer than its timeout."""
        limit = None if self.termination_protected else self.idle_timeout_seconds
        left = None if limit is None else idle_since + limit - time.monotonic()
        if left is None or left > 0:
            self.changed.wait(left)
        else:
            self._end("USER_REQUEST", f"Terminated by its auto-termination policy after {limit} idle seconds")

    def _begin(self, step: LocalStep) -> None:
        self.state, self.reason = "RUNNING", {"Message": "Running step"}
        folder = self.server.state_dir / self.id / "steps" / step.id
        log_uri = step_log_uri(self.log_uri, self.id, step.id) if self.log_uri else None
        step.execution = Execution(StepSpec(step.jar, list(step.args), folder, log_uri), self.server)
        step.state, step.start_date_time = "RUNNING", utcnow()
        self._running = step
        log.info("%s %s RUNNING: %s (%s)", self.id, step.id, step.name, folder)

    def _execute(self, step: LocalStep) -> str | None:
        assert step.execution is not None
        try:
            configurations = [_plain(item) for item in self.configurations]
            region, settings = self.emr_backend.region_name, self.server.settings
            return step.execution.run(read_spec(configurations, self._tags, region, settings))
        except Exception as error:
            log.exception("%s %s: internal error of the embedded EMR", self.id, step.id)
            return f"Internal error of the embedded EMR: {error!r}"

    def _record_end(self, step: LocalStep, failure: str | None) -> None:
        """Record how a step ended. After a failure, apply its `ActionOnFailure`."""
        if step.cancelled:
            step.finish("CANCELLED", "Cancelled while it was running")
        elif failure is None:
            step.finish("COMPLETED")
        else:
            step.failure_details = {"Reason": "Unknown Error.", "Message": failure}
            if self.log_uri:
                step.failure_details["LogFile"] = f"{step_log_uri(self.log_uri, self.id, step.id)}/stderr.gz"
            step.finish("FAILED", failure)
            self._apply_action_on_failure(step)
        log.info("%s %s %s %s", self.id, step.id, step.state, step.message)

    def _apply_action_on_failure(self, step: LocalStep) -> None:
        if step.action_on_failure == "CONTINUE":
            return
        protected = self.termination_protected and self.keep_job_flow_alive_when_no_steps
        if step.action_on_failure == "CANCEL_AND_WAIT" or protected:
            self._cancel_steps()
        else:
            self._end("STEP_FAILURE", "Shut down as step failed", errors=True)

    def _end(self, code: str, message: str, *, errors: bool = False) -> None:
        """Enter TERMINATING and cancel all steps, unless it has been done. The caller holds the condition."""
        if self._ending:
            return
        self.state, self.reason, self._errors = "TERMINATING", {"Code": code, "Message": message}, errors
        self._cancel_steps()
        self.changed.notify_all()

    def _cancel_steps(self) -> None:
        for step in self.local_steps:
            step.cancel()


def _plain(value: Any) -> Any:
    """Return the value with moto's mappings, which change the spelling of keys, replaced by their originals."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    value = value.original_dict() if hasattr(value, "original_dict") else value
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
