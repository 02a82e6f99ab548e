"""Fixtures: a real server of the embedded EMR, and boto3 clients of it."""

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config

from infra.emr.server import embedded_emr
from infra.emr.settings import EmrSettings
from tests.infra.emr.answers import CheckedAnswers
from tests.support.waiting import PATIENCE_SECONDS, until

ROOT = Path(__file__).parents[3]
AWS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def marked(text: str) -> list[psutil.Process]:
    """Return the running processes that have this text in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "name", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(text in arg for arg in process.info["cmdline"] or []):
            found.append(process)
    return found


def descendants(text: str) -> list[psutil.Process]:
    """Return the descendants of this process that have this text in their command line."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found += [process] if text in " ".join(process.cmdline()) else []
    return found


class Emr:
    """boto3 clients of the embedded EMR, with shortcuts for the tests."""

    def __init__(self, endpoint_url: str) -> None:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        self.endpoint_url = endpoint_url
        self.api = boto3.client("emr", endpoint_url=endpoint_url, region_name="us-east-1", **keys)
        self.s3 = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1", **keys)

    def unchecked(self) -> Any:
        """Return a client that sends wrong requests too."""
        config = Config(parameter_validation=False)
        return boto3.client("emr", endpoint_url=self.endpoint_url, region_name="us-east-1", config=config)

    def create(self, *steps: dict[str, Any], alive: bool = True, instances: Any = (), **request: Any) -> str:
        request = {"Name": "test", "LogUri": "s3://lake/logs/", "ReleaseLabel": "emr-spark-8.0.0", **request}
        all_instances = {"KeepJobFlowAliveWhenNoSteps": alive, **dict(instances)}
        return self.api.run_job_flow(Instances=all_instances, Steps=list(steps), **request)["JobFlowId"]

    def add(self, cluster: str, *steps: dict[str, Any]) -> list[str]:
        return self.api.add_job_flow_steps(JobFlowId=cluster, Steps=list(steps))["StepIds"]

    def status(self, cluster: str, step: str | None = None) -> dict[str, Any]:
        if step is None:
            return self.api.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]
        return self.api.describe_step(ClusterId=cluster, StepId=step)["Step"]["Status"]

    def wait(
        self, states: str, cluster: str, step: str | None = None, seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """Wait for one of the states, separated by spaces, and return the status."""

        def reached() -> dict[str, Any] | None:
            status = self.status(cluster, step)
            return status if status["State"] in states.split() else None

        return until(reached, seconds, f"{step or cluster} in {states}")

    def steps(self, cluster: str) -> list[dict[str, Any]]:
        """Return the cluster's steps, oldest first."""
        return self.api.list_steps(ClusterId=cluster)["Steps"][::-1]

    def states(self, cluster: str) -> list[str]:
        return [step["Status"]["State"] for step in self.steps(cluster)]

    def log(self, cluster: str, step: str, name: str = "stdout") -> str:
        key = f"logs/{cluster}/steps/{step}/{name}.gz"
        return gzip.decompress(self.s3.get_object(Bucket="lake", Key=key)["Body"].read()).decode()


def bash(script: str, on_failure: str = "CONTINUE", name: str = "a step") -> dict[str, Any]:
    return command("bash", "-c", script, on_failure=on_failure, name=name)


def command(*args: str, on_failure: str = "CONTINUE", name: str = "a step") -> dict[str, Any]:
    jar = {"Jar": "command-runner.jar", "Args": list(args)}
    return {"Name": name, "ActionOnFailure": on_failure, "HadoopJarStep": jar}


@pytest.fixture(scope="package")
def server_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of the shared server."""
    return tmp_path_factory.mktemp("emr state é")


@pytest.fixture(scope="package")
def server(server_state: Path) -> Iterator[tuple[str, CheckedAnswers]]:
    """One server in this process, shared by the tests that do not stop it, and what it has answered."""
    settings = EmrSettings(
        buckets=("lake",),
        state_dir=server_state,
        start_seconds=0.1,
        bootstrap_seconds=0.1,
        grace_seconds=2.0,
        step_env={"FOR_STEPS": "yes"},
    )
    checked: list[CheckedAnswers] = []

    def check(app: Any) -> CheckedAnswers:
        checked.append(CheckedAnswers(app))
        return checked[0]

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setenv("NIGHTJAR_TEST", "inherited")
    patch.setenv("AIRFLOW__SECRET", "not inherited")
    with embedded_emr(settings, check) as url:
        yield url, checked[0]
    patch.undo()


@pytest.fixture
def endpoint_url(server: tuple[str, CheckedAnswers]) -> str:
    return server[0]


@pytest.fixture
def answers(server: tuple[str, CheckedAnswers]) -> CheckedAnswers:
    return server[1]


@pytest.fixture
def emr(endpoint_url: str, answers: CheckedAnswers) -> Iterator[Emr]:
    """Clients of the shared server. Every answer that a test gets fits botocore's model."""
    answers.wrong.clear()
    yield Emr(endpoint_url)
    assert answers.wrong == []


@contextmanager
def served(*flags: str) -> Iterator[tuple[subprocess.Popen[str], Emr]]:
    """Start the server in a process of its own, and return the process and a client."""
    argv = [sys.executable, "-m", "infra.emr", "--port", "0", "--bucket", "lake", "--start-seconds", "0.1"]
    argv += ["--bootstrap-seconds", "0", "--grace-seconds", "1", *flags]
    with subprocess.Popen(
        argv, cwd=ROOT, env={**os.environ, **AWS}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield server, Emr(server.stdout.readline().split()[-1])
        finally:
            server.kill()
