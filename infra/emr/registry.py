"""All clusters of a server, in all regions."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from infra.emr import lifecycle, state
from infra.emr.answers import InvalidRequestError
from infra.emr.cluster import Cluster, tags_of
from infra.emr.nodes import new_id, read_nodes
from infra.emr.records import ENDED, ClusterRecord, StepRecord, lose_primary
from infra.emr.settings import ServerContext

LOG_SECONDS = 10.0
"""Time for uploading logs when the server stops, in addition to the grace period of the running steps."""


class Clusters:
    """The clusters of a server. They are kept in its state folder."""

    def __init__(self, server: ServerContext) -> None:
        self.server = server
        self._lock = threading.Lock()
        self._clusters: dict[str, Cluster] = {}
        server.faults.on_change = self._wake

    def load(self) -> None:
        """Read the clusters that an earlier server saved. Clusters that had not ended become TERMINATED_WITH_ERRORS."""
        now = self.server.clock.now()
        for record in state.load(self.server.state_dir, now):
            if record.state not in ENDED:
                lose_primary(record, now)
                state.save(self.server.state_dir, record)
            self._clusters[record.id] = Cluster(self.server, record)

    def create(self, region: str, request: dict[str, Any]) -> Cluster:
        """Create the cluster of a RunJobFlow request and start it."""
        now, instances = self.server.clock.now(), request["Instances"]
        nodes = read_nodes(instances, now)
        policy = request.get("AutoTerminationPolicy") or {}
        is_ha = nodes[0].on_demand + nodes[0].spot > 1
        record = ClusterRecord(
            id=new_id("j-"),
            region=region,
            request=request,
            created=now,
            keep_alive=bool(instances.get("KeepJobFlowAliveWhenNoSteps", False)) or is_ha,
            protected=bool(instances.get("TerminationProtected", False)) or is_ha,
            concurrency=int(request.get("StepConcurrencyLevel") or 1),
            tags=tags_of(request.get("Tags") or ()),
            nodes=nodes,
            idle_timeout=policy.get("IdleTimeout"),
            visible=bool(request.get("VisibleToAllUsers", True)),
            replace_unhealthy=bool(instances.get("UnhealthyNodeReplacement", not is_ha)),
            steps=[StepRecord(new_id("s-"), each, now) for each in request.get("Steps") or ()],
        )
        cluster = Cluster(self.server, record)
        with self._lock:
            self._clusters[record.id] = cluster
        cluster.launch(lifecycle.run)
        return cluster

    def find(self, region: str, cluster_id: str) -> Cluster:
        """Return the cluster with this id. Raise an `InvalidRequestError` if the region has no such cluster."""
        with self._lock:
            cluster = self._clusters.get(cluster_id)
        if cluster is None or cluster.record.region != region:
            raise InvalidRequestError(f"Cluster id '{cluster_id}' is not valid.")
        return cluster

    def all(self, region: str | None = None) -> Sequence[Cluster]:
        """Return all clusters, or those of a region, newest first."""
        with self._lock:
            found = [each for each in self._clusters.values() if region in (None, each.record.region)]
        return sorted(found, key=lambda each: each.record.created, reverse=True)

    def reset(self) -> None:
        """Kill the steps and bootstrap actions of all clusters, and forget all clusters."""
        for cluster in self.all():
            cluster.abandon()
        for cluster in self.all():
            cluster.join(LOG_SECONDS)
            state.forget(self.server.state_dir, cluster.record.id)
        with self._lock:
            self._clusters.clear()

    def stop(self) -> None:
        """Terminate all clusters, and wait until they have terminated."""
        for cluster in self.all():
            cluster.terminate()
        deadline = time.monotonic() + self.server.settings.grace_seconds + LOG_SECONDS
        for cluster in self.all():
            cluster.join(max(0.0, deadline - time.monotonic()))

    def next_loss(self, cluster_id: str) -> float | None:
        """Return the time at which a cluster's next spot instance will be lost. Return None if there is no notice."""
        with self._lock:
            cluster = self._clusters.get(cluster_id)
        return None if cluster is None else cluster.next_loss()

    def _wake(self) -> None:
        for cluster in self.all():
            cluster.wake()
