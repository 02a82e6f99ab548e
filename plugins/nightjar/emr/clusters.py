"""Find, create and end the clusters of a run or a project, with any boto3 client of EMR.

Every function can be repeated: a task that is tried again finds what an earlier try did.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nightjar.emr.requests import ENDED_CLUSTER, ClusterIdentity, name_prefix, oldest_first, outlived

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

END_LIMIT_SECONDS = 1800.0


class StillRunningError(Exception):
    """A cluster did not end within its limit."""


def find_clusters(client: EMRClient, identity: ClusterIdentity) -> list[str]:
    """Ids of the live clusters of a run, the oldest first."""
    found = [cluster for cluster in _live(client, identity.name) if cluster["Name"] == identity.name]
    return [cluster["Id"] for cluster in oldest_first(found) if identity.owns(_describe(client, cluster["Id"]))]


def create_cluster(client: EMRClient, identity: ClusterIdentity, request: Mapping[str, Any]) -> str:
    """Return the id of the run's one cluster; it is submitted unless it is there, and not waited for."""
    clusters = find_clusters(client, identity)
    if clusters:
        log.info("Cluster %s of this run is there already", clusters[0])
    else:
        created = client.run_job_flow(**request)["JobFlowId"]
        log.info("Submitted cluster %s (%s)", created, identity.name)
        clusters = find_clusters(client, identity) or [created]
    keep, *twins = clusters
    if twins:
        log.warning("Cluster %s has twins, which are ended: %s", keep, ", ".join(twins))
        _order_end(client, twins)
    return keep


def end_clusters(client: EMRClient, cluster_ids: Sequence[str], poll_seconds: float) -> None:
    """End clusters, termination protection or not, and wait until they have ended, with or without errors.

    Raises:
        StillRunningError: if one has not ended after half an hour.
    """
    _order_end(client, cluster_ids)
    deadline = time.monotonic() + END_LIMIT_SECONDS
    for cluster_id in cluster_ids:
        state = _wait_for_end(client, cluster_id, deadline, poll_seconds)
        log.info("Cluster %s: %s", cluster_id, state)


def end_outlived(client: EMRClient, project: str, poll_seconds: float) -> list[str]:
    """End the clusters of a project whose time to live is over; return their ids."""
    now = datetime.now(UTC)
    named = [cluster["Id"] for cluster in _live(client, name_prefix(project))]
    late = [cluster_id for cluster_id in named if outlived(_describe(client, cluster_id), project, now)]
    log.info("%d live clusters of project %s, %d outlived their time", len(named), project, len(late))
    end_clusters(client, late, poll_seconds)
    return late


def _live(client: EMRClient, prefix: str) -> list[Any]:
    pages = client.get_paginator("list_clusters").paginate(
        ClusterStates=["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
    )
    return [cluster for page in pages for cluster in page["Clusters"] if cluster["Name"].startswith(prefix)]


def _describe(client: EMRClient, cluster_id: str) -> Any:
    return client.describe_cluster(ClusterId=cluster_id)["Cluster"]


def _order_end(client: EMRClient, cluster_ids: Sequence[str]) -> None:
    for cluster_id in cluster_ids:
        cluster = _describe(client, cluster_id)
        if cluster["Status"]["State"] in ENDED_CLUSTER:
            continue
        if cluster.get("TerminationProtected"):
            log.info("Cluster %s: lifting its termination protection", cluster_id)
            client.set_termination_protection(JobFlowIds=[cluster_id], TerminationProtected=False)
        client.terminate_job_flows(JobFlowIds=[cluster_id])


def _wait_for_end(client: EMRClient, cluster_id: str, deadline: float, poll_seconds: float) -> str:
    while (state := str(_describe(client, cluster_id)["Status"]["State"])) not in ENDED_CLUSTER:
        if time.monotonic() > deadline:
            raise StillRunningError(f"cluster {cluster_id} is still {state}; end it by hand")
        time.sleep(poll_seconds)
    return state
