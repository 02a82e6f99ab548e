"""A real YARN behind the embedded EMR, for ``make test-yarn``. Needs Linux, root and Hadoop's jars."""

import gzip
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.airflow.environment import PROJECT_ROOT, environment
from infra.emr.command import EXECUTORS_TAG
from infra.emr.server import embedded_emr
from infra.emr.settings import EmrSettings
from infra.emr.yarn import hosts
from infra.emr.yarn.cluster import rest
from jobs.config import resolve
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake, Run
from jobs.lake.store import Store
from nightjar.emr.requests import ClusterIdentity, run_job_flow
from tests.support.headless import run_dag
from tests.support.waiting import until

BUCKET = "lakes"
LAKE = Lake(f"s3://{BUCKET}/yarn")
LOGS = f"s3://{BUCKET}/logs"
REGION = "eu-central-1"
EXECUTOR, MASTER, DRIVER = "CoarseGrainedExecutorBackend", "ExecutorLauncher", "SparkSubmit"
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


def last_application() -> str:
    """Return the id of YARN's last application."""
    found = re.findall(r"application_\d+_\d+", json.dumps(rest("apps")))
    return max(found, key=lambda each: int(each.rpartition("_")[2]))


def nodes() -> dict[str, str]:
    """Return the state of each node by its host's name."""
    return {each["nodeId"].partition(":")[0]: each["state"] for each in rest("nodes").get("nodes") or []}


def processes(number: int, word: str = EXECUTOR) -> list[int]:
    """Return the JVMs of a host that have a word in their command line."""
    found = []
    for pid in hosts.processes(number):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.encode() in part for part in command) and command[0].endswith(b"java"):
                found.append(pid)
    return found


def host_of(word: str, *numbers: int) -> int | None:
    """Return the first of the hosts that has a JVM with a word in its command line."""
    return next((number for number in numbers if processes(number, word)), None)


def configurations(region: str | None) -> list[dict[str, Any]]:
    """Return the configuration of a cluster of the DAG."""
    identity = ClusterIdentity(LAKE.run("none"))
    request = run_job_flow(resolve("none", "tiny", {}), identity, datetime.now(UTC), f"{LAKE.uri}/package", region)
    return list(request["Configurations"])


def used_mb() -> int:
    """Return the MB of memory that this machine's processes take."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return (int(fields["MemTotal"].split()[0]) - int(fields["MemAvailable"].split()[0])) >> 10


class Yarn:
    """The embedded EMR with clusters on a YARN, as a test uses it."""

    def __init__(self, endpoint: str, home: Path) -> None:
        self.endpoint = endpoint
        self.home = home
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
        self.api = boto3.client("emr", endpoint_url=endpoint, **keys)
        self.s3 = boto3.client("s3", endpoint_url=endpoint, **keys)
        self.store = Store(lambda: self.s3)

    @contextmanager
    def cluster(self, workers: int = 2, region: str | None = REGION, executors: str = "yarn") -> Iterator[str]:
        """Start a cluster with the DAG's configuration, whose nodes have 11,712 MB each, and end it after the block."""
        groups = [
            {"InstanceRole": "MASTER", "InstanceType": "m6i.xlarge", "InstanceCount": 1},
            {"InstanceRole": "CORE", "InstanceType": "m6i.xlarge", "InstanceCount": workers},
        ]
        started = time.monotonic()
        created = self.api.run_job_flow(
            Name="test",
            LogUri=f"{LOGS}/",
            ReleaseLabel="emr-spark-8.0.0",
            Instances={"InstanceGroups": groups, "KeepJobFlowAliveWhenNoSteps": True},
            Configurations=configurations(region),
            Tags=[{"Key": EXECUTORS_TAG, "Value": executors}],
        )["JobFlowId"]
        try:
            state = until(lambda: self.state(created) not in ("STARTING", "BOOTSTRAPPING") and self.state(created), 240)
            assert state == "WAITING", self.api.describe_cluster(ClusterId=created)["Cluster"]["Status"]
            sys.stdout.write(f"\na cluster of {workers} nodes ({executors}): {time.monotonic() - started:.0f} s\n")
            yield created
        finally:
            self.api.terminate_job_flows(JobFlowIds=[created])
            until(lambda: self.state(created).startswith("TERMINATED"), 60)

    def state(self, cluster: str) -> str:
        return self.api.describe_cluster(ClusterId=cluster)["Cluster"]["Status"]["State"]

    def resize(self, cluster: str, workers: int) -> None:
        groups = self.api.list_instance_groups(ClusterId=cluster)["InstanceGroups"]
        core = next(each["Id"] for each in groups if each["InstanceGroupType"] == "CORE")
        change = {"InstanceGroupId": core, "InstanceCount": workers}
        self.api.modify_instance_groups(ClusterId=cluster, InstanceGroups=[change])

    def submit(self, cluster: str, *args: str, name: str = "train") -> str:
        jar = {"Jar": "command-runner.jar", "Args": list(args)}
        step = {"Name": name, "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}
        return self.api.add_job_flow_steps(JobFlowId=cluster, Steps=[step])["StepIds"][0]

    def step(self, cluster: str, step: str) -> dict[str, Any]:
        return self.api.describe_step(ClusterId=cluster, StepId=step)["Step"]

    def wait(self, cluster: str, step: str, seconds: float = 300) -> tuple[str, str]:
        """Wait for the end of a step, and return its state and all of its logs."""
        until(lambda: self.step(cluster, step)["Status"]["State"] in ENDED, seconds, "the step does not end")
        texts = [self.log(cluster, step, name) for name in ("controller", "stderr", "stdout")]
        return self.step(cluster, step)["Status"]["State"], "".join(texts)

    def printed(self, cluster: str, step: str) -> str:
        """Return what a running step has printed so far."""
        folder = self.home / "emr" / cluster / "steps" / step
        found = [folder / name for name in ("stderr", "stdout")]
        return "".join(path.read_text("utf-8", "replace") for path in found if path.exists())

    def log(self, cluster: str, step: str, name: str, folder: str = LOGS) -> str:
        return gzip.decompress(self.store.read_bytes(f"{folder}/{cluster}/steps/{step}/{name}.gz")).decode()

    def dag(self, name: str, conf: Mapping[str, Any]) -> tuple[int, str, Run, Path]:
        """Run the whole DAG; return its exit code, Airflow's log, the run, and the folder of statistics."""
        log, stats = self.home / f"{name}.log", self.home / "stats"
        own = {"NIGHTJAR_PACKAGE_ROOT": str(PROJECT_ROOT), "NIGHTJAR_STATS_DIR": str(stats)}
        code = run_dag(conf, name, {**environment(self.home / "airflow", LAKE.uri, self.endpoint), **own}, log)
        return code, log.read_text(), LAKE.run(name, DEFAULT), stats


@pytest.fixture(scope="session")
def yarn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yarn]:
    """The server, and this process as a client of its S3. Each cluster has the machine's hosts for itself."""
    home = tmp_path_factory.mktemp("yarn")
    settings = EmrSettings(
        buckets=(BUCKET,), state_dir=home / "emr", start_seconds=0.1, bootstrap_seconds=0, executors="yarn"
    )
    with embedded_emr(settings) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield Yarn(endpoint, home)


@pytest.fixture(autouse=True)
def measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print how long a test took, and how much memory was in use at its end."""
    started = time.monotonic()
    yield
    sys.stdout.write(f"\n{request.node.name}: {time.monotonic() - started:.0f} s, {used_mb():,} MB in use\n")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these tests to ``make test-yarn``: they take minutes, and the hosts of this machine."""
    return None if config.option.markexpr == "yarn" else True
