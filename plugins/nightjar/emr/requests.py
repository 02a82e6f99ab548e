"""Build EMR requests, names and tags from a run's configuration. Pure functions: nothing here calls AWS.

A run's cluster is found by its name, which is derived from the run's folder, and then verified by its tags. The name is
needed because RunJobFlow has no client token and ListClusters returns no tags. Steps have no tags. So a run's step is
found by its name and its arguments, which name the run's configuration file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from jobs.config import ClusterConfig, Config, SparkConfig
from jobs.config.sizes import sized
from jobs.errors import InputError
from jobs.lake.identity import encode_name, shorten_name
from jobs.lake.layout import Lake, Run
from jobs.lake.region import VARIABLES
from jobs.lake.uri import join
from nightjar.packaging import PYTHON

USABLE_CLUSTER_STATES = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
"""States in which a cluster takes steps."""
ENDED_CLUSTER_STATES = ("TERMINATED", "TERMINATED_WITH_ERRORS")
ACTIVE_STEP_STATES = ("PENDING", "CANCEL_PENDING", "RUNNING")
START_LIMIT_SECONDS = 3600.0
"""Time limit for a step to start, including the start of its cluster. The step's own time limit begins after that."""

_MAX_NAME_LENGTH = 256
_TAG_CHARACTERS = " +:/@"
"""Characters that AWS allows in a tag besides letters, digits and ``._-=``."""
_EXPIRY_TAG = "nightjar:expires"
_INSTANCE_TYPES = ("primary_instance_types", "core_instance_types", "task_instance_types")
_MANAGED_POLICY_TAG = {"for-use-with-amazon-emr-managed-policies": "true"}
"""AWS's policy for EMR's service role, AmazonEMRServicePolicy_v2, covers only resources that have this tag."""
_FIXED = {
    # An all-reduce worker group needs all of its slots at once, so the number of executors is fixed.
    "spark.dynamicAllocation.enabled": "false",
    "spark.speculation": "false",
    # EMR enables the shuffle service by default. With the authentication of version 2 below, executors could not
    # register with it. No step needs the service, because none shuffles data.
    "spark.shuffle.service.enabled": "false",
    # Otherwise EMR would treat the sizes of executors as minimum sizes.
    "spark.yarn.heterogeneousExecutors.enabled": "false",
}
"""Spark settings of the cluster and of each step that override EMR's own defaults."""
_SPARK_DEFAULTS = {
    "spark.pyspark.python": PYTHON,
    "spark.pyspark.driver.python": PYTHON,
    **_FIXED,
    # Encrypt Spark's own traffic, with a secret that YARN makes for each application. gloo's traffic is not covered:
    # see docs/operations/security.md.
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.network.crypto.authEngineVersion": "2",
    "spark.io.encryption.enabled": "true",
}


@dataclass(frozen=True)
class ClusterIdentity:
    """The name and tags by which a run's cluster is found."""

    run: Run

    @property
    def name(self) -> str:
        """The name of the run's cluster, which no other run's cluster has."""
        return shorten_name(f"{name_prefix(self.run.project)}/{self.run.folder.partition('/')[2]}", _MAX_NAME_LENGTH)

    @property
    def tags(self) -> dict[str, str]:
        """Tags that only this run's cluster has: the run's three names, and the lake."""
        project, pipeline, run = self.run.folder.split("/")
        return {
            "nightjar:project": project,
            "nightjar:pipeline": pipeline,
            "nightjar:run_id": run,
            "nightjar:lake": encode_name(self.run.lake_uri, also=_TAG_CHARACTERS, most=_MAX_NAME_LENGTH),
        }

    def owns(self, cluster: Mapping[str, Any]) -> bool:
        """Return whether `cluster`, as returned by DescribeCluster, belongs to this run."""
        tags = tags_of(cluster)
        return all(tags.get(key) == value for key, value in self.tags.items())


def name_prefix(project: str) -> str:
    """Return the prefix of the names of all clusters of `project`.

    Clusters of another project may have this prefix, too: `nightjar-a` is a prefix of `nightjar-ab`.
    """
    return f"nightjar-{project}"


def tags_of(cluster: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a cluster, as returned by DescribeCluster."""
    return {tag["Key"]: tag.get("Value", "") for tag in cluster.get("Tags") or []}


def expiry_time(cluster: Mapping[str, Any]) -> datetime | None:
    """Return when a cluster expires, according to its tag. Return None without this tag.

    Raises:
        ValueError: if the tag's value is not a time.
    """
    text = tags_of(cluster).get(_EXPIRY_TAG)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"its tag {_EXPIRY_TAG} is {text!r}, not a time") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def time_to_live(config: Config) -> timedelta:
    """Return the time after which a run's cluster expires.

    It is `cluster.time_to_live_hours`, or the sum of the time limits of the start and of all steps if that is longer.
    """
    steps = timedelta(seconds=START_LIMIT_SECONDS + len(config.steps) * config.cluster.step_timeout_seconds)
    return max(steps, timedelta(hours=config.cluster.time_to_live_hours or 0))


def run_job_flow(
    config: Config, identity: ClusterIdentity, now: datetime, package_uri: str, region: str | None = None
) -> dict[str, Any]:
    """Return the RunJobFlow request for a run's cluster. EMR itself terminates a cluster that is idle for too long.

    The request sets `region` in the environment of driver and executors. Otherwise they would send requests for S3 to
    us-east-1.
    """
    cluster = config.cluster
    expires = (now + time_to_live(config)).astimezone(UTC).isoformat(timespec="seconds")
    tags = {**identity.tags, "nightjar:owner": _tag_value(cluster.owner), _EXPIRY_TAG: expires, **_MANAGED_POLICY_TAG}
    request = {
        "Name": identity.name,
        "LogUri": Lake(identity.run.lake_uri).logs + "/",
        "ReleaseLabel": cluster.release_label,
        "Applications": [{"Name": "Spark"}],
        "Instances": _instances(cluster),
        "Configurations": _configurations(region),
        "BootstrapActions": _bootstrap_actions(cluster, package_uri),
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


def _configurations(region: str | None) -> list[dict[str, Any]]:
    """Return the request's `Configurations`: the defaults of every Spark application, and the driver's environment."""
    exported = dict.fromkeys(VARIABLES, region) if region else {}
    # In cluster mode, the driver runs in YARN's application master and gets its variables from there.
    places = ("spark.executorEnv", "spark.yarn.appMasterEnv")
    environment = {f"{place}.{name}": value for place in places for name, value in exported.items()}
    found: list[dict[str, Any]] = [
        {"Classification": "spark", "Properties": {"maximizeResourceAllocation": "false"}},
        {"Classification": "spark-defaults", "Properties": {**_SPARK_DEFAULTS, **environment}},
    ]
    if exported:
        export = {"Classification": "export", "Properties": exported}
        found.append({"Classification": "spark-env", "Properties": {}, "Configurations": [export]})
    return found


def num_choices(cluster: ClusterConfig) -> int:
    """Return how many different lists of instance types `without_types` can make."""
    used = _INSTANCE_TYPES if cluster.task_instances else _INSTANCE_TYPES[:-1]
    return max(len(getattr(cluster, name)) for name in used)


def without_types(config: Config, choice: int) -> Config:
    """Return `config` without the first `choice` types of each list of instance types. The last type always stays."""
    lists = {name: getattr(config.cluster, name) for name in _INSTANCE_TYPES}
    left = {name: types[min(choice, len(types) - 1) :] for name, types in lists.items()}
    return config.model_copy(update={"cluster": config.cluster.model_copy(update=left)})


def _instances(cluster: ClusterConfig) -> dict[str, Any]:
    """Return the request's `Instances`: one fleet of several instance types for each kind of node.

    Task nodes are spot instances. The primary node and the core nodes are on-demand instances.
    """
    fleets = [
        _fleet("MASTER", "primary", cluster.primary_instance_types, on_demand=1),
        _fleet("CORE", "core", cluster.core_instance_types, on_demand=cluster.core_instances),
    ]
    if cluster.task_instances:
        fleets.append(_fleet("TASK", "task", cluster.task_instance_types, spot=cluster.task_instances))
        spot = {
            "TimeoutDurationMinutes": cluster.spot_timeout_minutes,
            "TimeoutAction": "SWITCH_TO_ON_DEMAND",
            "AllocationStrategy": "price-capacity-optimized",
        }
        fleets[-1]["LaunchSpecifications"] = {"SpotSpecification": spot}
    network = {
        "Ec2SubnetIds": list(cluster.subnet_ids),
        "EmrManagedMasterSecurityGroup": cluster.primary_security_group,
        "EmrManagedSlaveSecurityGroup": cluster.core_security_group,
        "ServiceAccessSecurityGroup": cluster.service_security_group,
    }
    return {
        "InstanceFleets": fleets,
        "KeepJobFlowAliveWhenNoSteps": True,
        "TerminationProtected": False,
        **{key: value for key, value in network.items() if value},
    }


def _bootstrap_actions(cluster: ClusterConfig, package_uri: str) -> list[dict[str, Any]]:
    """Return the request's `BootstrapActions`: every node builds the job's environment before any step runs."""
    args = ["--package", package_uri, "--torch", cluster.torch_build]
    if cluster.wheelhouse:
        args += ["--wheels", cluster.wheelhouse]
    script = {"Path": join(package_uri, "bootstrap.sh"), "Args": args}
    return [{"Name": "nightjar environment", "ScriptBootstrapAction": script}]


def _fleet(role: str, name: str, types: tuple[str, ...], on_demand: int = 0, spot: int = 0) -> dict[str, Any]:
    """Return an instance fleet in which an instance of any type counts as one node."""
    return {
        "Name": name,
        "InstanceFleetType": role,
        "TargetOnDemandCapacity": on_demand,
        "TargetSpotCapacity": spot,
        "InstanceTypeConfigs": [{"InstanceType": each, "WeightedCapacity": 1} for each in types],
        "LaunchSpecifications": {"OnDemandSpecification": {"AllocationStrategy": "lowest-price"}},
    }


def add_step(
    cluster_id: str, step: str, config: Config, run: Run, package_uri: str, attempt: int = 1
) -> dict[str, Any]:
    """Return the AddJobFlowSteps request for one step of the job; `attempt` is the number of the attempt.

    The cluster continues after a failed step: Airflow decides whether to retry the step.
    """
    submit = spark_submit(step, sized(config).spark, package_uri)
    args = [*submit, step, "--config", run.config, "--attempt", str(attempt), "--owner", cluster_id]
    runner = {"Jar": "command-runner.jar", "Args": args}
    return {"JobFlowId": cluster_id, "Steps": [{"Name": step, "ActionOnFailure": "CONTINUE", "HadoopJarStep": runner}]}


def spark_submit(step: str, spark: SparkConfig, package_uri: str) -> list[str]:
    """Return the spark-submit command of a step, without the step's own arguments.

    In client deploy mode, cancelling the step ends the driver, and the step's exit code and log are the driver's. In
    cluster mode, YARN starts the driver and does not restart it.
    """
    filled = spark.filled()
    conf = {
        "spark.executor.instances": str(filled.executors),
        "spark.executor.cores": str(filled.executor_cores),
        # Python and torch run outside the JVM. YARN kills a container that exceeds its memory limit.
        "spark.executor.memoryOverhead": str(filled.executor_overhead),
        **_FIXED,
        "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    }
    if filled.deploy_mode == "cluster":
        # YARN must not restart the driver: it would run at the same time as Airflow's next attempt.
        conf["spark.yarn.maxAppAttempts"] = "1"
        conf["spark.driver.memoryOverhead"] = filled.driver_memory
    sizes = ["--driver-memory", filled.driver_memory, "--executor-memory", str(filled.executor_memory)]
    settings = [argument for key, value in conf.items() for argument in ("--conf", f"{key}={value}")]
    code = ["--py-files", join(package_uri, "jobs.zip"), join(package_uri, "launcher.py")]
    start = ["spark-submit", "--master", "yarn", "--deploy-mode", filled.deploy_mode]
    start += ["--name", f"{spark.app_name}-{step}"]
    return [*start, *sizes, *settings, *code]


def attempt_of(step: Mapping[str, Any]) -> tuple[Run, int] | None:
    """Return the run and the attempt's number from the arguments that `add_step` gave to a step.

    Return None for a step without these arguments. `step` is a step in the answer of DescribeStep or ListSteps.
    """
    args = step.get("Config", {}).get("Args") or []
    options = dict(pairwise(args))
    number = options.get("--attempt", "")
    if not (number.isascii() and number.isdigit()):
        return None
    try:
        return Run.of_config(options.get("--config", "")), int(number)
    except InputError:
        return None


def cancel_steps(cluster_id: str, step_ids: Sequence[str]) -> dict[str, Any]:
    """Return the CancelSteps request. EMR then terminates the driver, because a driver may ignore an interrupt."""
    return {"ClusterId": cluster_id, "StepIds": list(step_ids), "StepCancellationOption": "TERMINATE_PROCESS"}


def is_overdue(step: Mapping[str, Any], now: datetime, limit_seconds: float, start_seconds: float) -> bool:
    """Return whether `step` has run for more than `limit_seconds`, or waited to start for more than `start_seconds`."""
    timeline = step["Status"].get("Timeline", {})
    started, created = timeline.get("StartDateTime"), timeline.get("CreationDateTime")
    since, limit = (started, limit_seconds) if started else (created, start_seconds)
    return since is not None and (now - since).total_seconds() > limit


def oldest_first(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return clusters or steps sorted by creation time, then by id."""
    return sorted(items, key=lambda item: (item["Status"]["Timeline"]["CreationDateTime"], item["Id"]))


def _tag_value(text: str) -> str:
    """Return `text` as the value of a tag.

    Each character that AWS refuses in a tag is replaced by ``_``, and a text that is too long is cut off.
    """
    return re.sub(r"[^\w\s+=.:/@-]", "_", text)[:_MAX_NAME_LENGTH]
