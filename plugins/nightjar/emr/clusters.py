"""Find, create and terminate the clusters of a run or a project, with any boto3 client of EMR.

Every function is idempotent: a retried task finds what the earlier attempt created.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs.errors import NightjarError
from nightjar.emr.requests import ENDED_CLUSTER_STATES, ClusterIdentity, is_expired, name_prefix, oldest_first

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

TERMINATION_TIMEOUT_SECONDS = 1800.0


class TerminationTimeoutError(NightjarError):
    """A cluster did not terminate within the timeout."""


def find_clusters(client: EMRClient, identity: ClusterIdentity) -> list[str]:
    """Return the ids of the run's active clusters, oldest first."""
    found = [cluster for cluster in _active_clusters(client, identity.name) if cluster["Name"] == identity.name]
    return [cluster["Id"] for cluster in oldest_first(found) if identity.owns(_describe(client, cluster["Id"]))]


def all_clusters(client: EMRClient, identity: ClusterIdentity, since: datetime) -> list[str]:
    """Return the ids of the run's clusters that were created after `since`, in any state."""
    pages = client.get_paginator("list_clusters").paginate(CreatedAfter=since)
    named = [cluster["Id"] for page in pages for cluster in page["Clusters"] if cluster["Name"] == identity.name]
    return [cluster_id for cluster_id in named if identity.owns(_describe(client, cluster_id))]


def create_cluster(client: EMRClient, identity: ClusterIdentity, request: Mapping[str, Any]) -> str:
    """Return the id of the run's cluster, after submitting `request` if the run has none. Does not wait for it."""
    clusters = find_clusters(client, identity)
    if clusters:
        log.info("Using the run's existing cluster %s", clusters[0])
    else:
        created = client.run_job_flow(**request)["JobFlowId"]
        log.info("Submitted cluster %s (%s)", created, identity.name)
        # RunJobFlow has no client token, so a request that boto3 repeated may have created a second cluster.
        clusters = find_clusters(client, identity) or [created]
    oldest, *duplicates = clusters
    if duplicates:
        log.warning("Keeping cluster %s; terminating its duplicates %s", oldest, ", ".join(duplicates))
        _request_termination(client, duplicates)
    return oldest


def terminate_clusters(
    client: EMRClient,
    cluster_ids: Sequence[str],
    poll_seconds: float,
    timeout_seconds: float = TERMINATION_TIMEOUT_SECONDS,
) -> None:
    """Terminate clusters, also protected ones, and wait until they have terminated.

    Raises:
        TerminationTimeoutError: if one has not terminated within the timeout.
    """
    _request_termination(client, cluster_ids)
    deadline = time.monotonic() + timeout_seconds
    for cluster_id in cluster_ids:
        state = wait_until_ended(client, cluster_id, deadline, poll_seconds)
        log.info("Cluster %s is %s", cluster_id, state)


def terminate_expired(client: EMRClient, project: str, poll_seconds: float) -> list[str]:
    """Terminate the project's clusters that have exceeded their time to live, and return their ids."""
    now = datetime.now(UTC)
    active = [cluster["Id"] for cluster in _active_clusters(client, name_prefix(project))]
    expired = [cluster_id for cluster_id in active if is_expired(_describe(client, cluster_id), project, now)]
    log.info("Project %s has %d active clusters, of which %d have expired", project, len(active), len(expired))
    terminate_clusters(client, expired, poll_seconds)
    return expired


def wait_until_ended(client: EMRClient, cluster_id: str, deadline: float, poll_seconds: float) -> str:
    """Return the final state of a cluster, once it has one.

    Raises:
        TerminationTimeoutError: if it has none at the deadline, a time of `time.monotonic`.
    """
    while (state := str(_describe(client, cluster_id)["Status"]["State"])) not in ENDED_CLUSTER_STATES:
        if time.monotonic() > deadline:
            raise TerminationTimeoutError(
                f"cluster {cluster_id} is still {state} after the timeout; terminate it in the EMR console"
            )
        time.sleep(poll_seconds)
    return state


def _active_clusters(client: EMRClient, prefix: str) -> list[Any]:
    pages = client.get_paginator("list_clusters").paginate(
        ClusterStates=["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
    )
    return [cluster for page in pages for cluster in page["Clusters"] if cluster["Name"].startswith(prefix)]


def _describe(client: EMRClient, cluster_id: str) -> Any:
    return client.describe_cluster(ClusterId=cluster_id)["Cluster"]


def _request_termination(client: EMRClient, cluster_ids: Sequence[str]) -> None:
    for cluster_id in cluster_ids:
        cluster = _describe(client, cluster_id)
        if cluster["Status"]["State"] in ENDED_CLUSTER_STATES:
            continue
        if cluster.get("TerminationProtected"):
            log.info("Removing the termination protection of cluster %s", cluster_id)
            client.set_termination_protection(JobFlowIds=[cluster_id], TerminationProtected=False)
        client.terminate_job_flows(JobFlowIds=[cluster_id])
