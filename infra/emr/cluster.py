"""A cluster: its record, its running commands, and the methods by which calls of the API change it.

Each cluster has a thread (`infra/emr/lifecycle.py`). Threads of the API add steps, cancel them and request the end of
the cluster. The condition variable `Cluster.changed` guards the record. It is not held while a command runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from infra.emr import bootstrap, guard
from infra.emr.answers import ApiError
from infra.emr.command import EXECUTORS_TAG, ClusterSpec, read_defaults, read_exports
from infra.emr.control import PREFIX
from infra.emr.execution import GuardedCommand, StepExecution
from infra.emr.instance_types import yarn_megabytes
from infra.emr.nodes import Instance, new_id
from infra.emr.records import ACTIVE_STEP, ENDING, ClusterRecord, StepRecord
from infra.emr.settings import ServerContext
from infra.emr.state import save
from infra.emr.yarn.cluster import Yarn

log = logging.getLogger(__name__)

NOT_MODIFIABLE = "A job flow that is shutting down, terminated, or finished may not be modified."
MAX_ACTIVE_STEPS = 256


class Cluster:
    """A cluster that runs its steps on this machine."""

    def __init__(self, server: ServerContext, record: ClusterRecord) -> None:
        self.server = server
        self.record = record
        self.changed = threading.Condition()
        self.folder = server.state_dir / record.id
        self.running: dict[str, StepExecution] = {}
        """The running steps. The keys are the ids of the steps."""
        self.cancelled: set[str] = set()
        """The ids of the running steps that are being cancelled."""
        self.has_errors = False
        """Whether the cluster's final state is TERMINATED_WITH_ERRORS instead of TERMINATED."""
        self.yarn: Yarn | None = None
        """The local YARN cluster that runs the steps. If None, steps run without YARN."""
        self._bootstrap: GuardedCommand | None = None
        self._thread: threading.Thread | None = None

    def is_ending(self) -> bool:
        """Return whether the cluster is terminating or has terminated."""
        return self.record.state in ENDING

    @property
    def executors(self) -> str:
        """How executors run: see `EmrSettings.executors`. The value may come from a tag and is not validated."""
        return self.record.tags.get(EXECUTORS_TAG, self.server.settings.executors)

    @property
    def workers(self) -> list[Instance]:
        """The live instances that run executors."""
        return [each for nodes in self.record.nodes if nodes.role != "MASTER" for each in nodes.live]

    def launch(self, run: Callable[[Cluster], None]) -> None:
        """Start the cluster's thread, which calls `run`."""
        with self.changed:
            self.save()
        self._thread = threading.Thread(target=run, args=(self,), name=self.record.id, daemon=True)
        self._thread.start()

    def add_steps(self, requests: Sequence[dict[str, Any]]) -> list[str]:
        """Queue steps and return their ids.

        Raises:
            ApiError: if the cluster is ending, or would have too many active steps.
        """
        with self.changed:
            self.check_open()
            if sum(step.state in ACTIVE_STEP for step in self.record.steps) + len(requests) > MAX_ACTIVE_STEPS:
                raise ApiError("Maximum number of active steps(State = 'Running', 'Pending') for cluster exceeded.")
            now = self.server.clock.now()
            added = [StepRecord(new_id("s-"), request, now) for request in requests]
            self.record.steps += added
            self.commit()
        return [step.id for step in added]

    def cancel_step(self, step_id: str) -> bool | None:
        """Cancel a step. Return whether the step was still active. Return None if the cluster has no such step."""
        with self.changed:
            step = self.record.step(step_id)
            cancelled = None if step is None else self._cancel(step)
            self.commit()
        return cancelled

    def check_open(self) -> None:
        """Raise an `ApiError` if the cluster is terminating or terminated. The caller must hold `changed`."""
        if self.is_ending():
            raise ApiError(NOT_MODIFIABLE)

    def terminate(self) -> None:
        """Terminate the cluster at a user's request. Running steps are ended in the background."""
        with self.changed:
            self.end("USER_REQUEST", "Terminated by user request")

    def abandon(self) -> None:
        """End the cluster: kill its commands without uploading their logs, and wait until no process is left."""
        with self.changed:
            self.end("INTERNAL_ERROR", "The embedded EMR was reset")
            running = self._commands()
        for command in running:
            command.stop(guard.KILL)
        for command in running:
            command.join()

    def join(self, timeout_seconds: float) -> None:
        """Wait until a terminating cluster has terminated, for at most `timeout_seconds`."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def commit(self) -> None:
        """Save the record and wake the cluster's thread. The caller must hold `changed`."""
        self.save()
        self.changed.notify_all()

    def wake(self) -> None:
        """Wake the cluster's thread, which then decides again what to do."""
        with self.changed:
            self.changed.notify_all()

    def save(self) -> None:
        """Save the record. The caller must hold `changed`."""
        save(self.server.state_dir, self.record)

    def log_state(self) -> None:
        """Log the cluster's state."""
        log.info(
            "%s %s: %s",
            self.record.id,
            self.record.state,
            self.record.reason.get("Message", self.record.request["Name"]),
        )

    def end(self, code: str, message: str, *, errors: bool = False) -> None:
        """Enter TERMINATING and cancel all steps, if the cluster is not ending yet. The caller must hold `changed`."""
        if self.is_ending():
            return
        self.record.state, self.record.reason = "TERMINATING", {"Code": code, "Message": message}
        self.has_errors = errors
        self.cancel_steps()
        if self._bootstrap is not None:
            self._bootstrap.stop()
        self.commit()

    def wait_until_ending(self, time: float) -> None:
        """Wait until the clock shows `time` or the cluster is terminating. The caller must hold `changed`."""
        while not self.is_ending() and self.server.clock.now() < time:
            self.server.clock.wait(self.changed, time)

    def next_loss(self) -> float | None:
        """Return the time at which the next spot instance will be lost. Return None if no instance has a notice."""
        with self.changed:
            times = [each.notice for nodes in self.record.nodes for each in nodes.live if each.notice is not None]
            return min(times, default=None)

    @contextmanager
    def stoppable(self, command: GuardedCommand) -> Iterator[None]:
        """While the `with` block runs, stop the bootstrap action `command` as soon as the cluster starts to end."""
        with self.changed:
            self._bootstrap = command
            if self.is_ending():
                command.stop()
        try:
            yield
        finally:
            with self.changed:
                self._bootstrap = None

    def spec(self) -> ClusterSpec:
        """Return the settings of the cluster for a step or bootstrap action that starts now."""
        configurations = self.record.request.get("Configurations") or []
        python = bootstrap.prefix(self.folder) / "env" / "bin" / "python"
        spec = ClusterSpec(
            region=self.record.region,
            executors=self.executors,
            spark_defaults=read_defaults(configurations),
            exports=read_exports(configurations),
            worker_megabytes=self._worker_megabytes(),
            yarn=self.yarn,
            metadata_url=f"{self.server.endpoint_url}{PREFIX}clusters/{self.record.id}",
        )
        return spec.with_python(str(python)) if python.exists() else spec

    def cancel_steps(self) -> None:
        """Cancel all steps. The caller must hold `changed`."""
        for step in self.record.steps:
            self._cancel(step)

    def _worker_megabytes(self) -> tuple[int, ...]:
        """Return the MB of memory that YARN would have on each worker if this cluster ran on real EMR.

        Return an empty tuple if the request declares no nodes, or if the size of an instance type is not known.
        """
        instances = self.record.request["Instances"]
        if not any(instances.get(name) for name in ("InstanceFleets", "InstanceGroups", "MasterInstanceType")):
            return ()
        workers = self.workers or self.record.nodes[0].live
        sizes = [yarn_megabytes(each.instance_type) for each in workers]
        return () if None in sizes else tuple(size for size in sizes if size is not None)

    def _cancel(self, step: StepRecord) -> bool:
        """Cancel the step and return True, or return False if it has ended."""
        if step.state == "PENDING":
            step.finish("CANCELLED", self.server.clock.now(), "Cancelled before it started")
        elif step.id in self.running:
            self.cancelled.add(step.id)
            self.running[step.id].stop()
        else:
            return False
        return True

    def _commands(self) -> list[GuardedCommand]:
        return [*self.running.values(), *([self._bootstrap] if self._bootstrap else [])]


def tags_of(given: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags of a request as a dictionary."""
    return {str(tag["Key"]): str(tag.get("Value") or "") for tag in given if tag.get("Key")}
