"""Fixtures of the DAGs' tests: the embedded EMR, a corpus, and runs of `train_llm`.

Runs use a stand-in for the job, unless a test passes `package_root=PROJECT_ROOT`.
"""

import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.airflow.environment import environment
from infra.airflow.headless import run_dag
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake, Run
from nightjar.aws import store
from tests.support import airflow

airflow.isolate()


@dataclass(frozen=True)
class Finished:
    """A finished run: its exit code, its log and its folder in the lake."""

    code: int
    log: str
    run: Run
    stats_dir: Path


@pytest.fixture(scope="session")
def emr(tmp_path_factory):
    with airflow.emr_process(tmp_path_factory.mktemp("emr")) as running:
        yield running


@pytest.fixture
def aws(emr, monkeypatch):
    """Point Airflow's connection in this process to the embedded EMR, and return a client of it."""
    airflow.connect(monkeypatch, emr.endpoint)
    return emr.client


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "a text.txt"
    path.write_text("The man starts with a question.\n\n" * 200)
    return str(path)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The Airflow home of all headless runs."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def headless(emr, corpus, home, tmp_path):
    """Run `train_llm` without Airflow's servers. The keys of `conf` are dotted; variables are of the environment."""

    def run(lake_uri, conf, package_root=airflow.STANDIN, **variables):
        run_id = f"run-{uuid.uuid4().hex[:8]}"
        stats_dir, log = tmp_path / "stats", tmp_path / "dag.log"
        chosen = {"NIGHTJAR_PACKAGE_ROOT": str(package_root), "NIGHTJAR_STATS_DIR": str(stats_dir)}
        chosen |= {"NIGHTJAR_POLL_SECONDS": "0.3", **variables}
        environ = {**environment(home, lake_uri, emr.endpoint), **chosen}
        code = run_dag({"corpus": corpus, "preset": "tiny", **conf}, run_id, environ, log)
        return Finished(code, log.read_text(), Lake(lake_uri).run(run_id, DEFAULT), stats_dir)

    return run


@pytest.fixture
def progress():
    """Wait until a step of a run reports progress."""

    def wait(run, step, limit_seconds=200):
        deadline = time.monotonic() + limit_seconds
        while True:
            try:
                return store().read_json(run.progress(step))["message"]
            except FileNotFoundError:
                assert time.monotonic() < deadline, f"{step} has not started"
                time.sleep(0.2)

    return wait
