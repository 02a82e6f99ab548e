"""Runs of the DAG in a live Airflow, with an intervention while one call of a run waits for its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from infra.airflow.processes import GuardedProcess
from infra.emr.control import Control
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Run
from tests.chaos_airflow.headless import s3_store, write_corpus
from tests.chaos_airflow.judge import End, Result, judge
from tests.chaos_airflow.plan import Case
from tests.chaos_airflow.subjects import Subject, dags_folder
from tests.support.airflow import BUCKET, Emr
from tests.support.live import User, live_user

SHORT_HEARTBEATS = {
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
}
"""Airflow's defaults notice a dead task after five minutes."""
HOLD_SECONDS = 8.0
"""How long the disturbed call waits for its answer."""
RUN_SECONDS = 400.0
"""Most seconds for a run to end after the disturbance."""
STRIKE_SECONDS = 400.0
"""Most seconds until a run has made the call."""


@dataclass(frozen=True)
class LiveBench:
    """A live Airflow with a lake in the embedded S3."""

    subject: Subject
    user: User

    def execute(self, case: Case) -> Result:
        """Trigger a run, intervene when it makes the call, and wait for its end."""
        started, call = time.monotonic(), case.call
        endpoint = self.user.airflow.emr_endpoint
        control, emr, store = Control(endpoint), Emr(endpoint), s3_store(endpoint)
        # What an earlier run has left would spare this one some of its calls.
        store.delete_folder(self.user.lake.uri)
        run = self.user.lake.run(f"c-{case.short}", DEFAULT)
        conf = self.subject.prepare(run, self.user.corpus, store)
        held = {"service": call.service, "operation": call.operation, "callers": [call.caller]}
        fault = control.fault("delayed", seconds=HOLD_SECONDS, **held)
        try:
            self.user.start(run.run_id, conf)
            struck = self._await_call(control, fault, run) and self._intervene(case.disturbance, run)
            state = self._await_end(run)
            if not state:  # the next run starts when this one has ended
                self.user.mark(run, "failed")
        finally:
            control.clear()
        green = state == "success"
        cause = "" if green else str(self.user.states(run))
        name = self.subject.cluster_name(run)
        end = End(case, run, name, struck, state != "", green, cause, time.monotonic() - started)
        return judge(end, emr.client, store, lambda: self._go_on(run))

    def _go_on(self, run: Run) -> bool:
        self.user.clear(run, self.subject.first_task)
        return self._await_end(run) == "success"

    def _await_end(self, run: Run) -> str:
        """Return the final state of a run, or "" if it has none after a while."""
        try:
            return self.user.wait(run, RUN_SECONDS)
        except AssertionError:
            return ""

    def _await_call(self, control: Control, fault: str, run: Run) -> bool:
        """Wait until the run makes the call; return False if it ends without it."""
        deadline = time.monotonic() + STRIKE_SECONDS
        while not control.hits(fault):
            if time.monotonic() > deadline or self.user.ask(f"dagRuns/{run.run_id}")["state"] in ("success", "failed"):
                return False
            time.sleep(0.1)
        return True

    def _intervene(self, disturbance: str, run: Run) -> bool:
        """Disturb the run or Airflow; return False if there was nothing to disturb."""
        actions: dict[str, Callable[[], bool]] = {
            "task killed": lambda: kill_callers(self._daemon("scheduler"), self.user.airflow.emr_endpoint),
            "marked failed": lambda: self._mark(run, "failed"),
            "marked success": lambda: self._mark(run, "success"),
            "cleared": lambda: self._clear_current(run),
            "scheduler killed": lambda: kill_and_restart(self._daemon("scheduler")),
            "triggerer killed": lambda: kill_and_restart(self._daemon("triggerer")),
        }
        return actions[disturbance]()

    def _mark(self, run: Run, state: str) -> bool:
        self.user.mark(run, state)
        return True

    def _clear_current(self, run: Run) -> bool:
        current = [task for task, state in self.user.states(run).items() if state in ("running", "deferred")]
        for task in current[:1]:
            self.user.clear(run, task)
        return bool(current)

    def _daemon(self, name: str) -> GuardedProcess:
        return next(process for process in self.user.airflow.processes if process.name == name)


def kill_callers(scheduler: GuardedProcess, endpoint: str) -> bool:
    """Kill the processes of tasks that are connected to the embedded EMR; return whether there was one."""
    port, killed = int(endpoint.rpartition(":")[2]), 0
    for process in scheduler.descendants():
        with suppress(psutil.Error):
            if any(link.raddr and link.raddr.port == port for link in process.net_connections("tcp")):
                process.kill()
                killed += 1
    return killed > 0


def kill_and_restart(daemon: GuardedProcess) -> bool:
    """Kill a daemon of Airflow with all of its processes, and start it again."""
    for process in daemon.descendants():
        with suppress(psutil.Error):
            process.kill()
    daemon.wait()
    daemon.__enter__()
    return True


@contextmanager
def live_bench(subject: Subject, folder: Path) -> Iterator[LiveBench]:
    """Start a live Airflow for the duration of the block."""
    env = {**SHORT_HEARTBEATS, "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder(folder))}
    with live_user(folder / "live", write_corpus(folder), f"s3://{BUCKET}/live", env) as user:
        yield LiveBench(subject, replace(user, dag_id=subject.dag_id))
