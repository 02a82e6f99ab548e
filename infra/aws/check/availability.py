"""Checks of what AWS offers (EMR release, instance types, quotas), of the executors' sizes, and of the wheelhouse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.aws.check.findings import Deployment, Finding, ok, problem, unknown
from infra.aws.check.network import subnets
from jobs.config.instances import find_node
from jobs.config.releases import RELEASES
from jobs.config.sections.cluster import has_cuda
from jobs.config.sizes import container_mb
from jobs.errors import InputError
from nightjar import packaging
from nightjar.tasks.placement import place
from nightjar.tasks.preflight import check_wheelhouse

QUOTAS = {
    "on-demand": ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
    "on-demand GPU": ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    "on-demand P": ("L-417A185B", "Running On-Demand P instances"),
    "spot": ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    "spot GPU": ("L-3819A6DF", "All G and VT Spot Instance Requests"),
    "spot P": ("L-7212CCBC", "All P Spot Instance Requests"),
}
"""EC2's quotas of vCPUs. A key is a market and an instance family, such as ``spot GPU``.

A value is the quota's code and name.
"""


def check_placement(deployment: Deployment) -> Iterator[Finding]:
    """Check that the executors fit on the nodes."""
    try:
        placed = place(deployment.config)
    except InputError as error:
        yield problem("sizes", str(error), "Change the settings that this message names")
        return
    spark = placed.spark
    size = container_mb(spark.executor_memory or "", spark.executor_overhead or "")
    yield ok("sizes", f"{spark.executors} executors of {size:,} MB with {spark.executor_cores} tasks each")


def check_release(deployment: Deployment) -> Iterator[Finding]:
    """Check that EMR offers the release in the region, and that its Python and CUDA suit the packages for the nodes."""
    label, cluster = deployment.config.cluster.release_label, deployment.config.cluster
    known = RELEASES.get(label)
    python = ".".join(map(str, packaging.PYTHON_VERSION))
    if known is None:
        yield unknown(
            "release",
            f"{label} is not in the compatibility table ({', '.join(RELEASES)}), so Python and CUDA are not checked",
        )
    elif python not in known.python:
        yield problem("release", f"{label} has no Python {python}", f"Choose one of {', '.join(RELEASES)}")
    elif cluster.torch_build == "cuda" and known.cuda.split(".")[0] != packaging.TORCH_CUDA.removeprefix("cu")[:2]:
        yield problem(
            "release",
            f"the NVIDIA driver of {label} is for CUDA {known.cuda}",
            f"Choose a release with an NVIDIA driver for {packaging.TORCH_CUDA}",
        )
    labels: list[str] = []
    request: dict[str, str] = {"Filters": {"Prefix": label.rpartition(".")[0]}} if "." in label else {}  # type: ignore[dict-item]  # one member
    while True:
        answer = deployment.client("emr").list_release_labels(**request)
        labels += answer.get("ReleaseLabels", [])
        if not answer.get("NextToken"):
            break
        request["NextToken"] = answer["NextToken"]
    if label in labels:
        yield ok("release", f"{label} is offered in {deployment.region}")
    else:
        others = sorted(RELEASES.keys() & set(labels)) or labels[:5]
        yield problem("release", f"{label} is not offered in {deployment.region}", f"Choose one of {', '.join(others)}")


def check_supported_types(deployment: Deployment) -> Iterator[Finding]:
    """Check that the release supports the instance types."""
    cluster, supported = deployment.config.cluster, set[str]()
    marker: dict[str, str] = {}
    while True:
        answer = deployment.client("emr").list_supported_instance_types(ReleaseLabel=cluster.release_label, **marker)
        supported |= {each["Type"] for each in answer["SupportedInstanceTypes"]}
        if not answer.get("Marker"):
            break
        marker = {"Marker": answer["Marker"]}
    lacking = sorted({*cluster.primary_instance_types, *cluster.training_types} - supported)
    for name in lacking:
        yield problem("instance types", f"{cluster.release_label} does not support {name}", "Choose another type")
    if not lacking:
        yield ok("instance types", f"{cluster.release_label} supports all types of the cluster")


def check_offered_types(deployment: Deployment) -> Iterator[Finding]:
    """Check that each availability zone with a subnet offers at least one instance type of each fleet."""
    cluster = deployment.config.cluster
    if not cluster.subnet_ids:
        return
    fleets = {"primary": cluster.primary_instance_types, "core": cluster.core_instance_types}
    if cluster.task_instances:
        fleets["task"] = cluster.task_instance_types
    names = sorted({name for types in fleets.values() for name in types})
    for zone in sorted({subnet["AvailabilityZone"] for subnet in subnets(deployment)}):
        filters = [{"Name": "location", "Values": [zone]}, {"Name": "instance-type", "Values": names}]
        pages = deployment.client("ec2").get_paginator("describe_instance_type_offerings")
        answers = pages.paginate(LocationType="availability-zone", Filters=filters)
        offered = {each["InstanceType"] for page in answers for each in page["InstanceTypeOfferings"]}
        lacking = [f"{role} ({', '.join(types)})" for role, types in fleets.items() if not offered & set(types)]
        if lacking:
            yield problem(
                "instance types",
                f"{zone} offers no instance type of these fleets: {'; '.join(lacking)}",
                "Add instance types, or use a subnet in another zone",
            )
        else:
            yield ok("instance types", f"{zone} offers {', '.join(sorted(offered))}")


def check_quotas(deployment: Deployment) -> Iterator[Finding]:
    """Check that the account's quotas of vCPUs suffice for the cluster, if nothing else is running."""
    for market, needed in _vcpus(deployment).items():
        code, name = QUOTAS[market]
        answer: Any = deployment.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)
        limit = answer["Quota"]["Value"]
        if limit < needed:
            yield problem(
                "quotas",
                f"{name}: {limit:.0f} vCPUs, but the cluster needs {needed}",
                "Request a larger quota (aws service-quotas request-service-quota-increase --service-code ec2"
                f" --quota-code {code} --desired-value {needed})",
            )
        else:
            yield ok("quotas", f"{name}: {limit:.0f} vCPUs, of which the cluster needs {needed}")


def check_wheels(deployment: Deployment) -> Iterator[Finding]:
    """Check that the nodes can install their packages from the wheelhouse. Yield nothing if none is configured."""
    uri = deployment.config.cluster.wheelhouse
    if uri is None:
        return
    try:
        check_wheelhouse(deployment.config)
    except InputError as error:
        yield problem("wheels", str(error), "Make the wheelhouse again")
        return
    yield ok("wheels", uri)


def _vcpus(deployment: Deployment) -> dict[str, int]:
    """Return the number of vCPUs that the cluster needs at most from each quota, as a dict with keys of `QUOTAS`."""
    cluster, taken = deployment.config.cluster, dict[str, int]()
    fleets = [
        (cluster.primary_instance_types, 1, "on-demand"),
        (cluster.core_instance_types, cluster.core_instances, "on-demand"),
        (cluster.task_instance_types, cluster.task_instances, "spot"),
    ]
    for types, count, market in fleets:
        if not count:
            continue
        kind = f"{market} {'P' if types[0].startswith('p') else 'GPU'}" if has_cuda(types[0]) else market
        cores = [node.cores for name in types if (node := find_node(name))]
        taken[kind] = taken.get(kind, 0) + count * max(cores, default=0)
    return taken
