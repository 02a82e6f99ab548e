"""Another Airflow than ours with the unpacked bundle, for ``make test-mwaa``."""

from __future__ import annotations

import io
import os
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.airflow.standalone import LocalAirflow, call, local_airflow, login
from infra.cli import aws
from infra.emr.client import open_store
from jobs.lake.layout import Lake, Run
from jobs.lake.store import Store
from nightjar.packaging.build import zip_bytes

LAKE = Lake("s3://lakes/mwaa")
ENDED = ("success", "failed")
UNSET = ("NIGHTJAR_POLL_SECONDS", "NIGHTJAR_SPARK_EXECUTORS", "NIGHTJAR_SPARK_EXECUTOR_CORES")
"""What a local Airflow sets; the bundle must do with the lake alone."""


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these tests to ``make test-mwaa``: they take minutes, and an environment with another Airflow."""
    return None if config.option.markexpr == "mwaa" else True


@dataclass(frozen=True)
class Elsewhere:
    """A running Airflow of another version, and its folder, in which the bundle was unpacked."""

    airflow: LocalAirflow
    token: str
    home: Path

    @property
    def store(self) -> Store:
        """The store of its lake."""
        return open_store(self.airflow.emr_endpoint)

    def ask(self, path: str, body: Any = None) -> Any:
        return call(f"{self.airflow.url}/api/v2/{path}", body, self.token)

    def train(self, run_id: str, conf: dict[str, Any], limit_seconds: float = 1200) -> tuple[str, Run]:
        """Trigger a run and wait for its end; return its state and its folder in the lake."""
        self.ask("dags/train_llm/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": conf})
        deadline = time.monotonic() + limit_seconds
        while (state := self.ask(f"dags/train_llm/dagRuns/{run_id}")["state"]) not in ENDED:
            assert time.monotonic() < deadline, self.states(run_id)
            time.sleep(2)
        return state, LAKE.run(run_id, "default")

    def states(self, run_id: str) -> dict[str, str | None]:
        found = self.ask(f"dags/train_llm/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {each["task_id"]: each["state"] for each in found}

    def log(self, run_id: str, task: str) -> str:
        """Return the log of a task's first try, as the files have it."""
        folder = self.home / "airflow" / "logs" / "dag_id=train_llm" / f"run_id={run_id}" / f"task_id={task}"
        return "".join(path.read_text("utf-8") for path in sorted(folder.rglob("*attempt=1.log")))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AbstractContextManager[Elsewhere]]:
    """Return a function that starts the Airflow of one of the environments, `with` aiobotocore or `without`."""

    @contextmanager
    def start(kind: str) -> Iterator[Elsewhere]:
        home = tmp_path / uuid.uuid4().hex[:6]
        for name, files in (("dags", aws.bundled_dags()), ("plugins", aws.bundled_plugins())):
            zipfile.ZipFile(io.BytesIO(zip_bytes(files))).extractall(home / name)
        env = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
            "PYTHONPATH": "",
            "PYTHONSAFEPATH": "1",  # the working folder is the project, whose modules must not be found
            **dict.fromkeys(UNSET, ""),
        }
        airflow = [f"{os.environ['NIGHTJAR_MWAA']}/{kind}/bin/python", "-m", "airflow"]
        with local_airflow(home / "airflow", LAKE.uri, extra_env=env, airflow=airflow) as running:
            monkeypatch.setenv("AWS_ENDPOINT_URL", running.emr_endpoint)
            yield Elsewhere(running, login(running.url, running.password), home)

    return start
