"""Runs of a DAG without Airflow's servers on an embedded EMR of its own, with one disturbed call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from infra.airflow.environment import environment
from infra.emr.control import Control
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake, Run
from jobs.lake.store import Store
from tests.chaos_airflow.judge import End, Result, judge
from tests.chaos_airflow.plan import Call, Case, calls_of
from tests.chaos_airflow.subjects import Subject, dags_folder
from tests.support.airflow import BUCKET, STANDIN, Emr, emr_process
from tests.support.headless import run_dag


@dataclass(frozen=True)
class Bench:
    """An embedded EMR, a lake in its S3, and a corpus."""

    subject: Subject
    folder: Path
    emr: Emr
    corpus: str

    @property
    def control(self) -> Control:
        """The control of the embedded EMR."""
        return Control(self.emr.endpoint)

    def record(self) -> list[Call]:
        """Return the distinct calls of an undisturbed run, which succeeds."""
        run = Lake(f"s3://{BUCKET}/record").run("record", DEFAULT)
        conf = self.subject.prepare(run, self.corpus, s3_store(self.emr.endpoint))
        self.control.forget_calls()
        code, log = self._run(run, conf)
        if code != 0:
            raise RuntimeError(f"the undisturbed run failed:\n{log[-3000:]}")
        return calls_of(self.control.calls())

    def execute(self, case: Case) -> Result:
        """Run the DAG while a call of it is disturbed."""
        started = time.monotonic()
        run = Lake(f"s3://{BUCKET}/{case.short}").run(f"c-{case.short}", DEFAULT)
        control, call, store = self.control, case.call, s3_store(self.emr.endpoint)
        conf = self.subject.prepare(run, self.corpus, store)
        fault = control.fault(
            case.disturbance, service=call.service, operation=call.operation, callers=[call.caller], count=1
        )
        try:
            code, log = self._run(run, conf)
            struck = control.hits(fault) > 0
        finally:
            control.clear()
        cause = "" if code == 0 else (log.splitlines() or [""])[-1]
        end = End(case, run, self.subject.cluster_name(run), struck, True, code == 0, cause, time.monotonic() - started)
        # In another Airflow, all tasks of the run are new, as if they were cleared.
        return judge(end, self.emr.client, store, lambda: self._run(run, conf, "again")[0] == 0)

    def _run(self, run: Run, conf: Mapping[str, Any], home: str = "home") -> tuple[int, str]:
        log = self.folder / "dag.log"
        environ = {
            **environment(self.folder / home, run.lake_uri, self.emr.endpoint),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder(self.folder)),
            "NIGHTJAR_PACKAGE_ROOT": str(STANDIN),
            "NIGHTJAR_STATS_DIR": str(self.folder / "stats"),
            "NIGHTJAR_POLL_SECONDS": "0.3",
        }
        code = run_dag(conf, run.run_id, environ, log, self.subject.dag_id)
        return code, log.read_text("utf-8", errors="replace")


@contextmanager
def bench(subject: Subject, folder: Path) -> Iterator[Bench]:
    """Start an embedded EMR for the duration of the block."""
    with emr_process(folder / "emr") as emr:
        yield Bench(subject, folder, emr, write_corpus(folder))


def s3_store(endpoint: str) -> Store:
    """Return the store of the embedded S3, for what is made before a run and judged after it."""
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    return Store(lambda: client)


def write_corpus(folder: Path) -> str:
    """Write a small text and return its path."""
    path = folder / "text.txt"
    path.write_text("The man starts with a question.\n\n" * 200)
    return str(path)
