"""Start a cluster: launch its instances, handle missing EC2 capacity, and run the bootstrap actions."""

from __future__ import annotations

import logging

from infra.emr import machines
from infra.emr.bootstrap import BootstrapAction, BootstrapFailure, skip_reason, worker_failure, write_fault
from infra.emr.cluster import Cluster
from infra.emr.faults import Fault
from infra.emr.logs import bootstrap_log_uri
from infra.emr.nodes import NodeSet

log = logging.getLogger(__name__)

_CAPACITY_CODE = "INTERNAL_ERROR_EC2_INSUFFICIENT_CAPACITY_AZ"
_DEFAULT_SPOT_TIMEOUT_MINUTES = 60


def start(cluster: Cluster) -> bool:
    """Launch the instances and run the bootstrap actions. Return False if the cluster ends before it is ready."""
    server, record = cluster.server, cluster.record
    with cluster.changed:
        cluster.log_state()
        slow = server.faults.of_cluster("slow-start", record.matched())
        seconds = server.settings.start_seconds + sum(fault.seconds for fault in slow)
        missing = _launch_all(cluster)
        cluster.wait_until_ending(server.clock.now() + seconds)
        if cluster.is_ending() or not all(_await_capacity(cluster, nodes, *lack) for nodes, lack in missing):
            return False
        for nodes in record.nodes:
            nodes.bootstrap()
        record.state, record.reason = "BOOTSTRAPPING", {"Message": "Running bootstrap actions"}
        cluster.log_state()
        cluster.save()
        cluster.wait_until_ending(server.clock.now() + server.settings.bootstrap_seconds)
    failure = None if cluster.is_ending() else _bootstrap(cluster) or machines.start(cluster)
    with cluster.changed:
        if failure is not None:
            record.error_details = list(failure.error_details)
            cluster.end("BOOTSTRAP_FAILURE", failure.message, errors=True)
        if cluster.is_ending():
            return False
        for nodes in record.nodes:
            nodes.run(server.clock.now())
        record.ready = server.clock.now()
        return True


def launch_missing(cluster: Cluster) -> None:
    """Launch the missing instances of all fleets and groups. The caller must hold `cluster.changed`."""
    for nodes in cluster.record.nodes:
        if nodes.provided("ON_DEMAND") < nodes.on_demand or nodes.provided("SPOT") < nodes.spot:
            _launch(cluster, nodes, _capacity_faults(cluster, [nodes]))
            nodes.run(cluster.server.clock.now())
    machines.sync(cluster)
    cluster.commit()


def _capacity_faults(cluster: Cluster, nodes: list[NodeSet]) -> list[Fault]:
    """Return the injected faults that keep EC2 from launching instances for these fleets or groups."""
    wishes = [wish for each in nodes for wish in each.wishes()]
    return cluster.server.faults.of_cluster(
        "no-capacity", cluster.record.matched(), lambda fault: any(fault.covers(*wish) for wish in wishes)
    )


def _launch(cluster: Cluster, nodes: NodeSet, faults: list[Fault]) -> list[tuple[str, str]]:
    """Launch the missing instances of a fleet or group. Return the result of `NodeSet.provision`."""
    return nodes.provision(cluster.server.clock.now(), lambda *wish: any(fault.covers(*wish) for fault in faults))


def _launch_all(cluster: Cluster) -> list[tuple[NodeSet, tuple[str, str]]]:
    faults = _capacity_faults(cluster, cluster.record.nodes)
    return [(nodes, lack) for nodes in cluster.record.nodes for lack in _launch(cluster, nodes, faults)]


def _await_capacity(cluster: Cluster, nodes: NodeSet, instance_type: str, market: str) -> bool:
    """Handle missing capacity. The caller must hold `cluster.changed`.

    A fleet waits for spot capacity until its timeout. If only task nodes lack capacity, the cluster continues without
    them. In all other cases the cluster ends.

    Return False if the cluster ends.
    """
    if nodes.is_fleet and market == "SPOT":
        return _await_spot(cluster, nodes)
    if nodes.role == "TASK":
        log.warning("%s continues without task nodes: EC2 is out of capacity for %s", cluster.record.id, instance_type)
        return True
    return _end_without_capacity(cluster, instance_type)


def _await_spot(cluster: Cluster, nodes: NodeSet) -> bool:
    """Wait for spot capacity until the fleet's timeout, and then try to launch the missing instances again.

    If capacity is still missing, apply the fleet's TimeoutAction: end the cluster, or use on-demand instances. Return
    False if the cluster ends.
    """
    spot = (nodes.request.get("LaunchSpecifications") or {}).get("SpotSpecification") or {}
    minutes = spot.get("TimeoutDurationMinutes", _DEFAULT_SPOT_TIMEOUT_MINUTES)
    log.warning("%s waits %s min for spot capacity of its %s fleet", cluster.record.id, minutes, nodes.role)
    cluster.wait_until_ending(cluster.server.clock.now() + minutes * 60)
    if cluster.is_ending():
        return False
    lacking = _launch(cluster, nodes, _capacity_faults(cluster, [nodes]))
    if lacking and spot.get("TimeoutAction", "TERMINATE_CLUSTER") == "TERMINATE_CLUSTER":
        cluster.end("INSTANCE_FLEET_TIMEOUT", "Provisioning of spot instances timed out", errors=True)
        return False
    nodes.switch_to_on_demand()
    lacking = _launch(cluster, nodes, _capacity_faults(cluster, [nodes]))
    return not lacking or nodes.role == "TASK" or _end_without_capacity(cluster, lacking[0][0])


def _end_without_capacity(cluster: Cluster, instance_type: str) -> bool:
    zone = cluster.record.zone
    message = (
        f"EC2 is out of capacity for {instance_type} in availability zone {zone}. Learn more at"
        " https://docs.aws.amazon.com/console/elasticmapreduce/ERROR_noinstancecapacity"
    )
    page = f"https://docs.aws.amazon.com/emr/latest/ManagementGuide/{_CAPACITY_CODE}.html"
    data = [{"instance-type": instance_type}, {"availability-zone": zone}, {"public-doc": page}]
    cluster.record.error_details = [{"ErrorCode": _CAPACITY_CODE, "ErrorData": data, "ErrorMessage": message}]
    cluster.end("INTERNAL_ERROR", message, errors=True)
    return False


def _bootstrap(cluster: Cluster) -> BootstrapFailure | None:
    """Run the bootstrap actions. Return the first failure, or None if there was none."""
    record, server = cluster.record, cluster.server
    primary = record.nodes[0].live[0].ec2_id
    faults = server.faults.of_cluster("bootstrap-failure", record.matched())
    actions = list(record.request.get("BootstrapActions") or ())
    for number, action in enumerate(actions, 1):
        for fault in faults:
            if fault.action == number:
                return _fail_by_fault(cluster, fault, action)
        if reason := skip_reason(action["ScriptBootstrapAction"], server.settings.bootstrap):
            log.info("%s bootstrap action %s (%s) is not executed: %s", record.id, number, action["Name"], reason)
            continue
        run = BootstrapAction(number, action, cluster.folder, server)
        uri = bootstrap_log_uri(record.log_uri, record.id, primary, number) if record.log_uri else ""
        log.info("%s bootstrap action %s (%s) runs in %s", record.id, number, action["Name"], run.folder)
        with cluster.stoppable(run):
            failure = run.execute(cluster.spec(), primary, uri)
        if failure is not None or cluster.is_ending():
            return failure
    return _fail_by_fault(cluster, faults[0], {}) if faults else None


def _fail_by_fault(cluster: Cluster, fault: Fault, action: dict[str, object]) -> BootstrapFailure:
    record = cluster.record
    workers = [each.ec2_id for nodes in record.nodes[1:] for each in nodes.live if nodes.role in fault.roles]
    failed = workers[:1] if workers else [record.nodes[0].live[0].ec2_id]
    folder = write_fault(cluster.folder, fault.action, fault.exit_code)
    if record.log_uri:
        cluster.server.uploads.add(folder, bootstrap_log_uri(record.log_uri, record.id, failed[0], fault.action))
    if workers:
        return worker_failure(fault.action, workers)
    script = action or {"ScriptBootstrapAction": {"Path": "s3://none/none"}}
    return BootstrapAction(fault.action, script, cluster.folder, cluster.server).failure(failed[0], fault.exit_code)
