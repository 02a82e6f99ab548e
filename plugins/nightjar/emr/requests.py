"""Requests to EMR, names and tags, built from a run's configuration. Pure: nothing here calls AWS.

Clusters and steps are found by their names, which follow from project, run and step, and verified by tags: RunJobFlow
has no client token, ListClusters shows no tags, and steps have none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.config import Config, SparkConfig
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join
from nightjar.emr import machines

ENDED_CLUSTER = ("TERMINATED", "TERMINATED_WITH_ERRORS")
LIVE_STEP = ("PENDING", "CANCEL_PENDING", "RUNNING")

_NAME_LENGTH = 256
_EXPIRES = "nightjar:expires"
_OF_EMR = {"for-use-with-amazon-emr-managed-policies": "true"}
"""Without this tag, AWS's policy for EMR's service role (AmazonEMRServicePolicy_v2) allows nothing."""


@dataclass(frozen=True)
class ClusterIdentity:
    """Which cluster is a run's own."""

    project: str
    run: Run

    @property
    def name(self) -> str:
        """The cluster's name."""
        return f"{name_prefix(self.project)}{self.run.run_id}"[:_NAME_LENGTH]

    @property
    def tags(self) -> dict[str, str]:
        """Tags that this run's clusters have and no others: a lake holds a run id once."""
        return {
            "nightjar:project": self.project,
            "nightjar:run_id": _tag_value(self.run.run_id),
            "nightjar:lake": _tag_value(self.run.lake_uri),
        }

    def owns(self, cluster: Mapping[str, Any]) -> bool:
        """Whether `cluster`, as DescribeCluster shows it, belongs to this run."""
        tags = tags_of(cluster)
        return all(tags.get(key) == value for key, value in self.tags.items())


def name_prefix(project: str) -> str:
    """What the names of all clusters of `project` start with."""
    return f"nightjar-{project}-"


def tags_of(cluster: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a cluster, as DescribeCluster shows it."""
    return {tag["Key"]: tag.get("Value", "") for tag in cluster.get("Tags") or []}


def outlived(cluster: Mapping[str, Any], project: str, now: datetime) -> bool:
    """Whether `cluster` is one of `project` whose time to live is over."""
    tags = tags_of(cluster)
    if tags.get("nightjar:project") != project or _EXPIRES not in tags:
        return False
    return datetime.fromisoformat(tags[_EXPIRES]) <= now


def run_job_flow(config: Config, identity: ClusterIdentity, now: datetime, package_uri: str) -> dict[str, Any]:
    """The RunJobFlow request: a cluster for one run, which EMR itself ends when it is idle for too long."""
    cluster = config.cluster
    expires = (now + timedelta(hours=cluster.time_to_live_hours)).astimezone(UTC).isoformat(timespec="seconds")
    tags = {**identity.tags, "nightjar:owner": _tag_value(cluster.owner), _EXPIRES: expires, **_OF_EMR}
    request = {
        "Name": identity.name,
        "LogUri": Lake(identity.run.lake_uri).logs + "/",
        "ReleaseLabel": cluster.release_label,
        "Applications": [{"Name": "Spark"}],
        "Instances": machines.instances(cluster),
        "Configurations": machines.configurations(),
        "BootstrapActions": machines.bootstrap_actions(cluster, package_uri),
        "EbsRootVolumeSize": cluster.root_volume_gb,
        "ServiceRole": cluster.service_role,
        "JobFlowRole": cluster.instance_profile,
        "VisibleToAllUsers": True,
        "StepConcurrencyLevel": 1,
        "AutoTerminationPolicy": {"IdleTimeout": cluster.idle_timeout_seconds},
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    if cluster.security_configuration:
        request["SecurityConfiguration"] = cluster.security_configuration
    return request


def add_step(cluster_id: str, step: str, config: Config, run: Run, package_uri: str) -> dict[str, Any]:
    """The AddJobFlowSteps request of one of the job's steps.

    A failed step leaves the cluster alone (CONTINUE): Airflow decides what comes next.
    """
    args = [*spark_submit(step, config.spark, package_uri), step, "--config", run.config]
    runner = {"Jar": "command-runner.jar", "Args": args}
    return {
        "JobFlowId": cluster_id,
        "Steps": [{"Name": step, "ActionOnFailure": "CONTINUE", "HadoopJarStep": runner}],
    }


def spark_submit(step: str, spark: SparkConfig, package_uri: str) -> list[str]:
    """The command that starts a step, up to the step's own arguments.

    Client deploy mode: cancelling the step then reaches the driver, and exit code and log are the step's own. Executors
    are fixed and tasks run once at a time, since a gang of training tasks must start together and be counted.
    """
    conf = {
        "spark.executor.instances": str(spark.executors),
        "spark.executor.cores": str(spark.executor_cores),
        "spark.dynamicAllocation.enabled": "false",
        "spark.speculation": "false",
        "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
        "spark.executor.memoryOverheadFactor": "1.0",  # Python and torch live beside the JVM; YARN kills what has more
    }
    sizes = ["--driver-memory", spark.driver_memory, "--executor-memory", spark.executor_memory]
    settings = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
    code = ["--py-files", join(package_uri, "jobs.zip"), join(package_uri, "launcher.py")]
    start = ["spark-submit", "--master", "yarn", "--deploy-mode", "client", "--name", f"{spark.app_name}-{step}"]
    return [*start, *sizes, *settings, *code]


def cancel_step(cluster_id: str, step_id: str) -> dict[str, Any]:
    """The CancelSteps request; the process is ended, since a driver may not listen to an interrupt."""
    return {"ClusterId": cluster_id, "StepIds": [step_id], "StepCancellationOption": "TERMINATE_PROCESS"}


def overdue(step: Mapping[str, Any], now: datetime, limit_seconds: float, start_seconds: float) -> bool:
    """Whether `step` has run for longer than its limit, or waited too long for its cluster to start."""
    timeline = step["Status"].get("Timeline", {})
    started, created = timeline.get("StartDateTime"), timeline.get("CreationDateTime")
    since, limit = (started, limit_seconds) if started else (created, start_seconds)
    return since is not None and (now - since).total_seconds() > limit


def oldest_first(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Clusters or steps by age; of the same age, by id."""
    return sorted(items, key=lambda item: (item["Status"]["Timeline"]["CreationDateTime"], item["Id"]))


def _tag_value(text: str) -> str:
    """`text` in the letters that AWS allows in a tag."""
    return re.sub(r"[^\w\s+=.:/@-]", "_", text)[:_NAME_LENGTH]
