"""Airflow in tests: an Airflow home for this process, and the embedded EMR as a process."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.airflow.environment import environment
from infra.airflow.processes import GuardedProcess, wait_until
from infra.airflow.standalone import EMR_READY_MESSAGE, emr_command
from jobs.cli.ports import free_port
from nightjar import aws

BUCKET = "lakes"
STANDIN = Path(__file__).parents[1] / "dags" / "standin"


def isolate() -> None:
    """Give this process an Airflow home of its own, without the user's settings. pytest's processes have one already.

    Call it before Airflow is imported.
    """
    home = tempfile.mkdtemp(prefix="nightjar-test-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    settings = environment(Path(home), "file:///nowhere", "http://127.0.0.1:9")
    os.environ |= {key: value for key, value in settings.items() if key.startswith("AIRFLOW")}


def connect(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Point Airflow's connection to AWS in this process to `endpoint`."""
    env = environment(Path(os.environ["AIRFLOW_HOME"]), "file:///nowhere", endpoint)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", env["AIRFLOW_CONN_AWS_DEFAULT"])
    for client in (aws.s3_client, aws.emr_client):
        if client.cache_info().currsize and client().meta.endpoint_url != endpoint:
            client.cache_clear()


@dataclass(frozen=True)
class Emr:
    """A running embedded EMR with the bucket `BUCKET`."""

    endpoint: str

    @cached_property
    def client(self) -> Any:
        return boto3.client(
            "emr",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="embedded",
            aws_secret_access_key="embedded",
        )

    def clusters(self, run_id: str) -> list[str]:
        """Return the states of a run's clusters, newest first."""
        found = self.client.list_clusters()["Clusters"]
        return [each["Status"]["State"] for each in found if each["Name"].endswith(f"/{run_id}")]

    def steps(self, run_id: str) -> list[tuple[str, str]]:
        """Return the names and states of a run's steps, oldest first within each cluster."""
        found = [each for each in self.client.list_clusters()["Clusters"] if each["Name"].endswith(f"/{run_id}")]
        steps = [step for each in found for step in reversed(self.client.list_steps(ClusterId=each["Id"])["Steps"])]
        return [(step["Name"], step["Status"]["State"]) for step in steps]


@contextmanager
def emr_process(folder: Path, variables: Mapping[str, str] | None = None) -> Iterator[Emr]:
    """Run the embedded EMR in a process of its own, because moto's state is global to a process.

    Args:
        folder: Folder of its state and its log.
        variables: Additional environment variables.
    """
    endpoint = f"http://127.0.0.1:{free_port(0)}"
    command = emr_command(folder, f"s3://{BUCKET}", endpoint)
    with GuardedProcess("emr", command, os.environ | dict(variables or {}), folder / "emr.log") as process:
        wait_until(lambda: process.has_logged(EMR_READY_MESSAGE), "the embedded EMR has not started", [process], 120)
        yield Emr(endpoint)
