"""Airflow in tests: a home of its own, made before the first import of Airflow, and the embedded EMR as a process."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3

from infra.airflow.environment import environment
from infra.airflow.processes import Guarded, free_port, wait_for
from infra.airflow.standalone import EMR_IS_READY, emr_command

BUCKET = "lakes"
STANDIN = Path(__file__).parents[1] / "dags" / "standin"


def isolate() -> None:
    """Give this process an Airflow of its own, which knows the DAGs and plugins of the project."""
    if "AIRFLOW_HOME" not in os.environ:
        home = tempfile.mkdtemp(prefix="nightjar-test-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        settings = environment(Path(home), "file:///nowhere", "http://127.0.0.1:9")
        os.environ |= {key: value for key, value in settings.items() if key.startswith("AIRFLOW")}


@dataclass(frozen=True)
class Emr:
    """A running embedded EMR, with the bucket `BUCKET`."""

    endpoint: str

    @cached_property
    def client(self) -> Any:
        return boto3.client("emr", endpoint_url=self.endpoint, region_name="us-east-1")

    def clusters(self, run_id: str) -> list[str]:
        """States of the clusters of a run, the newest first."""
        found = self.client.list_clusters()["Clusters"]
        return [each["Status"]["State"] for each in found if each["Name"].endswith(f"-{run_id}")]

    def steps(self, run_id: str) -> list[tuple[str, str]]:
        """Names and states of all steps of a run, the oldest first within each cluster."""
        found = [each for each in self.client.list_clusters()["Clusters"] if each["Name"].endswith(f"-{run_id}")]
        steps = [step for each in found for step in reversed(self.client.list_steps(ClusterId=each["Id"])["Steps"])]
        return [(step["Name"], step["Status"]["State"]) for step in steps]


@contextmanager
def emr_process(folder: Path) -> Iterator[Emr]:
    """The embedded EMR in a process of its own, since moto's state is global in a process."""
    endpoint = f"http://127.0.0.1:{free_port(0)}"
    command = emr_command(folder, f"s3://{BUCKET}", endpoint)
    with Guarded("emr", command, os.environ, folder / "emr.log") as process:
        wait_for(lambda: process.said(EMR_IS_READY), "an embedded EMR", [process], 60)
        yield Emr(endpoint)
