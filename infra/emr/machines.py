"""The machines behind a cluster's instances: none, as all are this machine, or the hosts of a YARN."""

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
"""MB of memory of a node whose type is not known: that of an m6i.xlarge."""


def start(cluster: Cluster) -> BootstrapFailure | None:
    """Start the hosts of a cluster that wants a YARN. Return why they cannot be started."""
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
        if yarn is not None:
            _end(cluster, yarn)
        return BootstrapFailure(f"YARN cannot start: {error}")
    with cluster.changed:
        cluster.yarn = yarn
        if is_up:
            log.info("%s has a YARN with %s nodes of up to %s MB", cluster.record.id, len(workers), largest)
            sync(cluster)
    return None


def sync(cluster: Cluster) -> None:
    """Make the hosts those of the live instances. The caller holds the condition."""
    if cluster.yarn is not None and not cluster.is_ending():
        try:
            cluster.yarn.sync(_primary(cluster).id, _megabytes(cluster))
        except (NightjarError, OSError, SubprocessError) as error:
            log.error("%s: its hosts are not those of its instances: %s", cluster.record.id, error)
        for each in (_primary(cluster), *cluster.workers):
            each.address = cluster.yarn.address(each.id) or each.address


def stop(cluster: Cluster) -> None:
    """Keep the logs of a cluster's hosts, and remove them."""
    yarn, cluster.yarn = cluster.yarn, None
    if yarn is not None:
        _end(cluster, yarn)


def _end(cluster: Cluster, yarn: Yarn) -> None:
    yarn.keep_logs(cluster.folder / "node")
    try:
        yarn.stop()
    except (NightjarError, OSError, SubprocessError) as error:
        log.error("%s: its hosts are left to the next cluster: %s", cluster.record.id, error)


def _primary(cluster: Cluster) -> Instance:
    return cluster.record.nodes[0].live[0]


def _megabytes(cluster: Cluster) -> dict[str, int]:
    """Return the memory for containers on each instance that runs them; the primary one runs them if it is alone."""
    found = {}
    for each in cluster.workers or [_primary(cluster)]:
        node = find_node(each.instance_type)
        found[each.id] = node.yarn_mb if node else _UNKNOWN_MB
    return found
