"""Find and terminate clusters, with any boto3 client of EMR.

If a call for one cluster fails, the other clusters are terminated all the same. Errors are collected and reported
together.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from jobs.errors import NightjarError
from jobs.prices.book import ON_DEMAND, SPOT, Market
from jobs.prices.metering import InstanceSpan
from nightjar.emr import requests
from nightjar.emr.causes import is_unknown_cluster
from nightjar.errors import AWS_ERRORS, MayStillRunError, message_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)

TERMINATION_TIMEOUT_SECONDS = 1800.0
_ENDED_STATES = (*requests.ENDED_CLUSTER_STATES, "gone")
"""EMR's final states, and `gone`, which stands for a cluster that EMR has no record of."""


def find_clusters(
    client: EMRClient, identity: requests.ClusterIdentity, problems: list[str] | None = None
) -> list[str]:
    """Return the ids of the run's clusters that have not ended, oldest first.

    The clusters are found by name and verified by tags. `problems` receives a line for each cluster that cannot be
    checked. If `problems` is None, the first error is raised instead.
    """
    found = [cluster for cluster in list_clusters(client, identity.name) if cluster["Name"] == identity.name]
    owned = []
    for cluster in requests.oldest_first(found):
        with collecting(problems, f"cluster {cluster['Id']} cannot be checked"):
            if identity.owns(describe(client, cluster["Id"])):
                owned.append(str(cluster["Id"]))
    return owned


def list_clusters(client: EMRClient, prefix: str) -> list[Any]:
    """Return the clusters that have not ended and whose name starts with `prefix`, as ListClusters returns them."""
    states: Any = [*requests.USABLE_CLUSTER_STATES, "TERMINATING"]
    pages = client.get_paginator("list_clusters").paginate(ClusterStates=states)
    return [cluster for page in pages for cluster in page["Clusters"] if cluster["Name"].startswith(prefix)]


def describe(client: EMRClient, cluster_id: str) -> Any:
    """Return the cluster in the answer of DescribeCluster."""
    return client.describe_cluster(ClusterId=cluster_id)["Cluster"]


def terminate_clusters(
    client: EMRClient,
    cluster_ids: Sequence[str],
    poll_seconds: float,
    problems: list[str],
    timeout_seconds: float = TERMINATION_TIMEOUT_SECONDS,
) -> None:
    """Terminate clusters, including protected ones, and wait until EMR reports that they have ended.

    `problems` receives a line for each cluster that may still run.
    """
    requested = []
    for cluster_id in cluster_ids:
        with collecting(problems, f"cluster {cluster_id} may still run"):
            request_termination(client, cluster_id)
            requested.append(cluster_id)
    deadline = time.monotonic() + timeout_seconds
    for cluster_id in requested:
        with collecting(problems, f"cluster {cluster_id} may still run"):
            state = wait_until_ended(client, cluster_id, deadline, poll_seconds)
            log.info("Cluster %s is %s", cluster_id, state)


def request_termination(client: EMRClient, cluster_id: str) -> None:
    """Request the termination of a cluster that has not ended."""
    state, protected = _state(client, cluster_id)
    if state in (*_ENDED_STATES, "TERMINATING"):
        return
    if protected:
        log.info("Removing the termination protection of cluster %s", cluster_id)
        client.set_termination_protection(JobFlowIds=[cluster_id], TerminationProtected=False)
    log.info("Terminating cluster %s", cluster_id)
    client.terminate_job_flows(JobFlowIds=[cluster_id])


def wait_until_ended(client: EMRClient, cluster_id: str, deadline: float, poll_seconds: float) -> str:
    """Wait until a cluster has ended, and return its final state.

    Raises:
        MayStillRunError: if the cluster has not ended at `deadline`, a time of `time.monotonic`.
    """
    while (state := _state(client, cluster_id)[0]) not in _ENDED_STATES:
        if time.monotonic() > deadline:
            raise MayStillRunError(f"it is still {state} after the timeout")
        time.sleep(poll_seconds)
    return state


def still_running(client: EMRClient, cluster_ids: Iterable[str]) -> list[str]:
    """Return a line for each cluster that may still run: EMR does not report that it has ended, or does not answer."""
    lines: list[str] = []
    for cluster_id in cluster_ids:
        with collecting(lines, f"cluster {cluster_id} may still run"):
            state = _state(client, cluster_id)[0]
            if state not in _ENDED_STATES:
                lines.append(f"cluster {cluster_id} is {state}")
    return lines


def instance_spans(client: EMRClient, cluster_id: str) -> tuple[InstanceSpan, ...]:
    """Return the times when a cluster's instances ran. AWS charges for these times, at least a minute per instance."""
    found: Counter[tuple[str, Market, float, float]] = Counter()
    for page in client.get_paginator("list_instances").paginate(ClusterId=cluster_id):
        for instance in page["Instances"]:
            times = instance["Status"].get("Timeline", {})
            if started := times.get("CreationDateTime"):
                ended = times.get("EndDateTime") or datetime.now(UTC)
                market: Market = SPOT if instance.get("Market") == "SPOT" else ON_DEMAND
                name = instance.get("InstanceType", "?")
                found[name, market, round(started.timestamp(), 3), round(ended.timestamp(), 3)] += 1
    return tuple(InstanceSpan(*key, count) for key, count in sorted(found.items()))


@contextmanager
def collecting(problems: list[str] | None, text: str) -> Iterator[None]:
    """Append an error from AWS or the lake to `problems`, as a line that starts with `text`.

    If `problems` is None, raise the error instead.
    """
    try:
        yield
    except (*AWS_ERRORS, OSError, NightjarError) as error:
        if problems is None:
            raise
        problems.append(f"{text} ({message_of(error)})")
        log.warning("%s", problems[-1])


def _state(client: EMRClient, cluster_id: str) -> tuple[str, bool]:
    """Return the state of a cluster and whether it is protected from termination."""
    try:
        cluster = describe(client, cluster_id)
    except ClientError as error:
        if is_unknown_cluster(error):
            log.warning("EMR has no cluster %s; it ended long ago, or is in another account or region", cluster_id)
            return "gone", False
        raise
    return str(cluster["Status"]["State"]), bool(cluster.get("TerminationProtected"))
