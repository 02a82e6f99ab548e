"""The thread of a cluster, which starts the cluster, runs its steps, waits for more steps, and ends the cluster."""

from __future__ import annotations

import logging

from infra.emr import machines, provisioning, steps
from infra.emr.cluster import Cluster
from infra.emr.spot import SpotMarket

log = logging.getLogger(__name__)


def run(cluster: Cluster) -> None:
    """Start the cluster, run its steps until it ends, and end it."""
    record, clock = cluster.record, cluster.server.clock
    try:
        if provisioning.start(cluster):
            _serve(cluster)
    except Exception:
        log.exception("%s: internal error of the embedded EMR", record.id)
        with cluster.changed:
            cluster.end("INTERNAL_ERROR", "Internal error of the embedded EMR", errors=True)
    with cluster.changed:
        while cluster.running:
            cluster.changed.wait()
    machines.stop(cluster)
    with cluster.changed:
        for nodes in record.nodes:
            nodes.end(clock.now())
        record.ended = clock.now()
        record.state = "TERMINATED_WITH_ERRORS" if cluster.has_errors else "TERMINATED"
        cluster.log_state()
        cluster.commit()


def _serve(cluster: Cluster) -> None:
    """Run steps until the cluster ends."""
    clock, market = cluster.server.clock, SpotMarket(cluster)
    with cluster.changed:
        idle_since: float | None = None
        while not cluster.is_ending():
            steps.begin_pending(cluster)
            times = market.advance()
            if cluster.running:
                idle_since = None
            else:
                idle_since = clock.now() if idle_since is None else idle_since
                times += _rest(cluster, idle_since)
            if not cluster.is_ending():
                clock.wait(cluster.changed, min(times, default=None))


def _rest(cluster: Cluster, idle_since: float) -> list[float]:
    """Handle a cluster without running steps: end it, or set its state to WAITING.

    End it if it is not kept alive without steps, or was idle for longer than its auto-termination policy allows.

    Returns:
        The time at which the policy ends the cluster. The list is empty if no policy applies.
    """
    record, clock = cluster.record, cluster.server.clock
    if cluster.is_ending():
        return []
    if not record.keep_alive:
        cluster.end("ALL_STEPS_COMPLETED", "Steps completed")
    elif record.state != "WAITING":
        record.state, record.reason = "WAITING", {"Message": "Cluster ready to run steps."}
        cluster.log_state()
        cluster.save()
    limit = None if record.protected else record.idle_timeout
    if limit is None:
        return []
    if clock.now() >= idle_since + limit:
        cluster.end("USER_REQUEST", f"Terminated by its auto-termination policy after {limit} idle seconds")
    return [idle_since + limit]
