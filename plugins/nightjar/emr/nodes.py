"""The nodes of a cluster and their set-up, as parts of a RunJobFlow request. Pure functions, like `requests`."""

from __future__ import annotations

from typing import Any

from jobs.config import ClusterConfig
from jobs.lake.uri import join
from nightjar.packaging.node_environment import PYTHON

_SPARK_DEFAULTS = {
    "spark.pyspark.python": PYTHON,
    "spark.pyspark.driver.python": PYTHON,
    # An all-reduce worker group needs all of its slots at once, so the number of executors is fixed.
    "spark.dynamicAllocation.enabled": "false",
    "spark.speculation": "false",
    # Encrypt Spark's own traffic, with a secret that YARN makes for each application. gloo's traffic is not covered:
    # see docs/security.md.
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    "spark.network.crypto.authEngineVersion": "2",
    "spark.io.encryption.enabled": "true",
}


def instances(cluster: ClusterConfig) -> dict[str, Any]:
    """Return the request's `Instances`: fleets of several types, task nodes on spot and all others on demand."""
    fleets = [
        _fleet("MASTER", "primary", cluster.primary_instance_types, on_demand=1),
        _fleet("CORE", "core", cluster.core_instance_types, on_demand=cluster.core_instances),
    ]
    if cluster.task_instances:
        fleets.append(_fleet("TASK", "task", cluster.task_instance_types, spot=cluster.task_instances))
        fleets[-1]["LaunchSpecifications"] = {"SpotSpecification": _spot(cluster.spot_timeout_minutes)}
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


def configurations() -> list[dict[str, Any]]:
    """Return the request's `Configurations`: Spark with a fixed number of executors and encrypted traffic."""
    return [
        {"Classification": "spark", "Properties": {"maximizeResourceAllocation": "false"}},
        {"Classification": "spark-defaults", "Properties": _SPARK_DEFAULTS},
    ]


def bootstrap_actions(cluster: ClusterConfig, package_uri: str) -> list[dict[str, Any]]:
    """Return the request's `BootstrapActions`: every node builds the job's environment before it runs a step."""
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


def _spot(timeout_minutes: int) -> dict[str, Any]:
    return {
        "TimeoutDurationMinutes": timeout_minutes,
        "TimeoutAction": "SWITCH_TO_ON_DEMAND",
        "AllocationStrategy": "price-capacity-optimized",
    }
