"""The machines that stand for a cluster's instances: this machine alone, or the hosts of a local YARN cluster."""

from __future__ import annotations

import logging
from pathlib import Path
from subprocess import SubprocessError

from infra.emr.bootstrap import BootstrapFailure
from infra.emr.cluster import Cluster
from infra.emr.nodes import Instance
from infra.emr.spark_home import require_spark
from infra.emr.yarn.cluster import Yarn, YarnSpec
from jobs.config.instances import find_node
from jobs.errors import NightjarError

log = logging.getLogger(__name__)

_UNKNOWN_MB = 11_712
"""MB of memory for containers on a node whose instance type is unknown. It is the value of an m6i.xlarge."""


def start(cluster: Cluster) -> BootstrapFailure | None:
    """Start the YARN hosts if the cluster's executors run on YARN. Return the failure, or None if there was none."""
    if cluster.executors != "yarn" or cluster.is_ending():
        return None
    spec, server = cluster.spec(), cluster.server
    workers, options = _megabytes(cluster), server.settings.java_options
    largest = max(workers.values())
    yarn = None
    try:
        wanted = YarnSpec(require_spark(), Path(spec.python), spec.spark_defaults, spec.exports, options, largest)
        yarn = Yarn(wanted)
        is_up = yarn.start(_primary(cluster).id, workers, server.s3_at, cluster.is_ending)
    except (NightjarError, OSError, SubprocessError) as error:
        if yarn is None:
            return BootstrapFailure(f"YARN cannot start: {error}")
        _end(cluster, yarn)
        return BootstrapFailure(f"YARN cannot start: {error}; its logs are in {cluster.folder / 'node'}")
    with cluster.changed:
        cluster.yarn = yarn
        if is_up:
            log.info("%s: YARN is running, with %s nodes of up to %s MB", cluster.record.id, len(workers), largest)
            sync(cluster)
    return None


def sync(cluster: Cluster) -> None:
    """Start hosts for new instances, and remove hosts of ended instances. The caller must hold `cluster.changed`."""
    if cluster.yarn is not None and not cluster.is_ending():
        try:
            cluster.yarn.sync(_primary(cluster).id, _megabytes(cluster))
        except (NightjarError, OSError, SubprocessError) as error:
            log.error("%s: cannot start or remove YARN hosts after a change of instances: %s", cluster.record.id, error)
        for each in (_primary(cluster), *cluster.workers):
            each.address = cluster.yarn.address(each.id) or each.address


def stop(cluster: Cluster) -> None:
    """Copy the logs of a cluster's YARN hosts to the cluster's folder, and remove the hosts."""
    yarn, cluster.yarn = cluster.yarn, None
    if yarn is not None:
        _end(cluster, yarn)


def _end(cluster: Cluster, yarn: Yarn) -> None:
    yarn.keep_logs(cluster.folder / "node")
    try:
        yarn.stop()
    except (NightjarError, OSError, SubprocessError) as error:
        log.error(
            "%s: cannot remove the YARN hosts (the next cluster on YARN removes them): %s", cluster.record.id, error
        )


def _primary(cluster: Cluster) -> Instance:
    return cluster.record.nodes[0].live[0]


def _megabytes(cluster: Cluster) -> dict[str, int]:
    """Return the MB of memory for containers on each instance that runs containers. The keys are the instances' ids.

    The primary instance runs containers only if the cluster has no workers.
    """
    found = {}
    for each in cluster.workers or [_primary(cluster)]:
        node = find_node(each.instance_type)
        found[each.id] = node.yarn_mb if node else _UNKNOWN_MB
    return found
