"""Losses of spot instances that a fault causes: first a notice, then (by default 120 s later) the termination."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from infra.emr import provisioning
from infra.emr.cluster import Cluster
from infra.emr.faults import ROLES, Fault
from infra.emr.nodes import Instance
from infra.emr.records import PRIMARY_LOST

log = logging.getLogger(__name__)

ALL_WORKERS_LOST = "All slaves in the job flow were terminated due to Spot"


@dataclass
class Loss:
    """A loss of spot instances that is scheduled but has not happened yet."""

    fault: Fault
    notice_at: float
    lost_at: float
    instances: list[Instance] | None = None
    """The instances that will be lost. None until they get their notice."""


class SpotMarket:
    """The losses of a cluster's spot instances. The caller of each method must hold `Cluster.changed`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._losses: list[Loss] = []
        self._faults: set[str] = set()
        """The ids of the faults that have hit this cluster. A fault hits a cluster at most once."""

    def advance(self) -> list[float]:
        """Give the notices that are due, and terminate the instances whose time has come.

        Return the times of all later notices and losses.
        """
        cluster, now = self._cluster, self._cluster.server.clock.now()
        found = cluster.server.faults.of_cluster("spot-loss", cluster.record.matched(), self._is_new)
        self._faults |= {fault.id for fault in found}
        for fault in found:
            notice_at = max(fault.added, cluster.record.ready or now) + fault.seconds
            self._losses.append(Loss(fault, notice_at, notice_at + fault.notice_seconds))
        for loss in list(self._losses):
            if loss.instances is None and now >= loss.notice_at:
                self._give_notice(loss)
            if loss.instances is not None and now >= loss.lost_at:
                self._losses.remove(loss)
                self._take(loss.instances)
        return [loss.notice_at if loss.instances is None else loss.lost_at for loss in self._losses]

    def _is_new(self, fault: Fault) -> bool:
        return fault.id not in self._faults and bool(self._exposed(fault))

    def _exposed(self, fault: Fault) -> list[Instance]:
        roles = fault.roles or ROLES
        found = [each for nodes in self._cluster.record.nodes if nodes.role in roles for each in nodes.live]
        return [each for each in found if each.market == "SPOT" and each.notice is None]

    def _give_notice(self, loss: Loss) -> None:
        found, seconds = self._exposed(loss.fault), loss.fault.notice_seconds
        loss.instances = found[: loss.fault.instances or len(found)]
        for each in loss.instances:
            each.notice = loss.lost_at
            log.warning("%s %s: spot instance will be lost in %s s", self._cluster.record.id, each.ec2_id, seconds)

    def _take(self, instances: Sequence[Instance]) -> None:
        """Terminate instances and their executors. Then launch replacements, or end the cluster."""
        cluster, workers = self._cluster, self._cluster.workers
        places = [place for place, each in enumerate(workers) if each in instances]
        for each in instances:
            reason = {"Code": "INSTANCE_FAILURE", "Message": "Instance was terminated due to Spot"}
            each.end(cluster.server.clock.now(), reason)
        killed = sum(each.kill_executors(places, len(workers)) for each in cluster.running.values()) if places else 0
        names = ", ".join(each.ec2_id for each in instances)
        log.warning("%s lost spot instances %s with %s executors", cluster.record.id, names, killed)
        primary, *others = cluster.record.nodes
        core = [nodes for nodes in others if nodes.role == "CORE"]
        if not primary.live:
            cluster.end("INSTANCE_FAILURE", PRIMARY_LOST, errors=True)
        elif core and not core[0].live:
            cluster.end("INSTANCE_FAILURE", ALL_WORKERS_LOST, errors=True)
        else:
            provisioning.launch_missing(cluster)
