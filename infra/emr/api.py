"""The EMR API. Each action is a method that takes a request and returns its answer, both in the form of EMR's JSON."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.utils import parse_to_aware_datetime

from infra.emr.answers import ApiError, InvalidRequestError, Problem, send_amz_json, send_problem
from infra.emr.calls import EMR_TARGET, Call, read_json, region_of
from infra.emr.cluster import Cluster, tags_of
from infra.emr.nodes import NodeSet, check_roles, new_fleet, new_group
from infra.emr.provisioning import launch_missing
from infra.emr.records import StepRecord
from infra.emr.registry import Clusters
from infra.emr.validation import check_request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

MOTO_ACTIONS = frozenset(
    {
        "CreateSecurityConfiguration",
        "DeleteSecurityConfiguration",
        "DescribeSecurityConfiguration",
        "GetBlockPublicAccessConfiguration",
        "ListReleaseLabels",
        "ListSupportedInstanceTypes",
        "PutBlockPublicAccessConfiguration",
    }
)
"""Actions that do not concern clusters. The library moto answers them."""
PAGE = 50
MAX_CONCURRENCY = 256
MAX_BOOTSTRAP_ACTIONS = 16
_PROTECTED = "Could not shut down one or more job flows since they are termination protected."
_NO_CONCURRENT_FAILURE = "ActionOnFailure must be CONTINUE if the StepConcurrencyLevel is greater than 1."

Request = Mapping[str, Any]
Answer = dict[str, Any] | None


class EmrApi:
    """The WSGI application for calls of EMR."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a call. The response to an invalid call is a client error; a failure of this server is status 500."""
        action = environ["HTTP_X_AMZ_TARGET"].removeprefix(EMR_TARGET)
        request, region = read_json(environ), region_of(environ)
        try:
            if action not in ACTIONS:
                raise InvalidRequestError(f"{action}: the embedded EMR does not implement this action.")
            check_request(action, request)
            return send_amz_json(start_response, ACTIONS[action](_Session(self._clusters, region), request))
        except ApiError as error:
            problem = error.problem
        except Exception as error:
            log.exception("%s: internal error of the embedded EMR", action)
            problem = Problem(500, "InternalFailure", f"internal error of the embedded EMR: {error!r}")
        return send_problem(start_response, Call("emr", action, region, values=request), problem, has_body=True)

    def is_moto_action(self, action: str) -> bool:
        """Return whether moto answers this action."""
        return action in MOTO_ACTIONS

    def reset(self) -> None:
        """Kill the steps and bootstrap actions of all clusters, and forget all clusters."""
        self._clusters.reset()


class _Session:
    """EMR's API for the clusters of one region. Each public method is an action."""

    def __init__(self, clusters: Clusters, region: str) -> None:
        self._clusters = clusters
        self._region = region

    def run_job_flow(self, request: Request) -> Answer:
        concurrency = int(request.get("StepConcurrencyLevel") or 1)
        _check_concurrency(concurrency, request.get("Steps") or ())
        if len(request.get("BootstrapActions") or ()) > MAX_BOOTSTRAP_ACTIONS:
            raise ApiError(f"A cluster has at most {MAX_BOOTSTRAP_ACTIONS} bootstrap actions.")
        if request.get("AmiVersion") and request.get("ReleaseLabel"):
            raise ApiError("Only one AMI version and release label may be specified.")
        cluster = self._clusters.create(self._region, dict(request))
        return {"JobFlowId": cluster.record.id, "ClusterArn": cluster.record.arn}

    def describe_cluster(self, request: Request) -> Answer:
        cluster = self._find(request["ClusterId"])
        with cluster.changed:
            return {"Cluster": cluster.record.answer()}

    def list_clusters(self, request: Request) -> Answer:
        states = request.get("ClusterStates") or ()
        after, before = _time(request.get("CreatedAfter")), _time(request.get("CreatedBefore"))
        found = [
            each.record.summary()
            for each in self._clusters.all(self._region)
            if (not states or each.record.state in states)
            and (after is None or each.record.created >= after)
            and (before is None or each.record.created < before)
        ]
        return _page("Clusters", found, request)

    def terminate_job_flows(self, request: Request) -> Answer:
        """Terminate all given clusters that have no termination protection.

        Raise an `ApiError` afterwards if any of the given clusters is protected.
        """
        clusters = self._find_all(request)
        for cluster in clusters:
            if not cluster.record.protected:
                cluster.terminate()
        if any(cluster.record.protected for cluster in clusters):
            raise ApiError(_PROTECTED)
        return None

    def add_job_flow_steps(self, request: Request) -> Answer:
        cluster, steps = self._find(request["JobFlowId"]), list(request.get("Steps") or ())
        _check_concurrency(cluster.record.concurrency, steps)
        return {"StepIds": cluster.add_steps(steps)}

    def describe_step(self, request: Request) -> Answer:
        cluster = self._find(request["ClusterId"])
        with cluster.changed:
            step = cluster.record.step(request["StepId"])
            if step is None:
                raise InvalidRequestError(f"Step id '{request['StepId']}' is not valid.")
            return {"Step": step.answer()}

    def list_steps(self, request: Request) -> Answer:
        """List steps, newest first."""
        cluster = self._find(request["ClusterId"])
        ids, states = request.get("StepIds") or (), request.get("StepStates") or ()

        def is_wanted(step: StepRecord) -> bool:
            return (not ids or step.id in ids) and (not states or step.state in states)

        with cluster.changed:
            found = [step.answer() for step in reversed(cluster.record.steps) if is_wanted(step)]
        return _page("Steps", found, request)

    def cancel_steps(self, request: Request) -> Answer:
        """Cancel pending and running steps: send SIGTERM, then SIGKILL. StepCancellationOption is ignored."""
        cluster = self._find(request["ClusterId"])
        infos = []
        for step_id in request.get("StepIds") or ():
            done = cluster.cancel_step(step_id)
            info = {"StepId": step_id, "Status": "SUBMITTED" if done else "FAILED"}
            if not done:
                info["Reason"] = "Step id is not valid." if done is None else "Step has already ended."
            infos.append(info)
        return {"CancelStepsInfoList": infos}

    def list_bootstrap_actions(self, request: Request) -> Answer:
        actions = self._find(request["ClusterId"]).record.request.get("BootstrapActions") or ()
        scripts = [(each["Name"], each["ScriptBootstrapAction"]) for each in actions]
        commands = [
            {"Name": name, "ScriptPath": script["Path"], "Args": script.get("Args") or []} for name, script in scripts
        ]
        return _page("BootstrapActions", commands, request)

    def list_instance_fleets(self, request: Request) -> Answer:
        return self._list_nodes("InstanceFleets", request, is_fleet=True)

    def list_instance_groups(self, request: Request) -> Answer:
        return self._list_nodes("InstanceGroups", request, is_fleet=False)

    def list_instances(self, request: Request) -> Answer:
        cluster = self._find(request["ClusterId"])
        ids = {request.get("InstanceGroupId"), request.get("InstanceFleetId")} - {None}
        roles = {*(request.get("InstanceGroupTypes") or ()), request.get("InstanceFleetType")} - {None}
        states = request.get("InstanceStates") or ()
        with cluster.changed:
            found = [
                each.answer() | {"InstanceFleetId" if nodes.is_fleet else "InstanceGroupId": nodes.id}
                for nodes in cluster.record.nodes
                if (not ids or nodes.id in ids) and (not roles or nodes.role in roles)
                for each in nodes.instances
                if not states or each.state in states
            ]
        return _page("Instances", found, request)

    def add_instance_fleet(self, request: Request) -> Answer:
        cluster = self._find(request["ClusterId"])
        fleet = new_fleet(request["InstanceFleet"], self._clusters.server.clock.now())
        self._add_nodes(cluster, [fleet])
        return {"ClusterId": cluster.record.id, "InstanceFleetId": fleet.id, "ClusterArn": cluster.record.arn}

    def add_instance_groups(self, request: Request) -> Answer:
        cluster, now = self._find(request["JobFlowId"]), self._clusters.server.clock.now()
        groups = [new_group(each, now) for each in request["InstanceGroups"]]
        self._add_nodes(cluster, groups)
        ids = [each.id for each in groups]
        return {"JobFlowId": cluster.record.id, "InstanceGroupIds": ids, "ClusterArn": cluster.record.arn}

    def modify_instance_fleet(self, request: Request) -> Answer:
        change = request["InstanceFleet"]
        cluster = self._find(request["ClusterId"])
        nodes = _nodes(cluster, change["InstanceFleetId"])
        on_demand = change.get("TargetOnDemandCapacity", nodes.on_demand)
        self._resize(cluster, nodes, on_demand, change.get("TargetSpotCapacity", nodes.spot))
        return None

    def modify_instance_groups(self, request: Request) -> Answer:
        for change in request.get("InstanceGroups") or ():
            given = request.get("ClusterId")
            clusters = [self._find(given)] if given else self._clusters.all(self._region)
            owners = [each for each in clusters if any(n.id == change["InstanceGroupId"] for n in each.record.nodes)]
            if not owners:
                raise InvalidRequestError(f"Instance group id '{change['InstanceGroupId']}' is not valid.")
            nodes = _nodes(owners[0], change["InstanceGroupId"])
            count = int(change.get("InstanceCount", nodes.on_demand + nodes.spot))
            on_demand, spot = (0, count) if nodes.request.get("Market") == "SPOT" else (count, 0)
            self._resize(owners[0], nodes, on_demand, spot)
        return None

    def add_tags(self, request: Request) -> Answer:
        cluster = self._find(request["ResourceId"])
        with cluster.changed:
            cluster.record.tags |= tags_of(request["Tags"])
            cluster.commit()
        return {}

    def remove_tags(self, request: Request) -> Answer:
        cluster = self._find(request["ResourceId"])
        with cluster.changed:
            for key in request["TagKeys"]:
                cluster.record.tags.pop(key, None)
            cluster.commit()
        return {}

    def set_termination_protection(self, request: Request) -> Answer:
        return self._set(request, "protected", request["TerminationProtected"])

    def set_keep_job_flow_alive_when_no_steps(self, request: Request) -> Answer:
        return self._set(request, "keep_alive", request["KeepJobFlowAliveWhenNoSteps"])

    def set_visible_to_all_users(self, request: Request) -> Answer:
        return self._set(request, "visible", request["VisibleToAllUsers"])

    def set_unhealthy_node_replacement(self, request: Request) -> Answer:
        return self._set(request, "replace_unhealthy", request["UnhealthyNodeReplacement"])

    def modify_cluster(self, request: Request) -> Answer:
        cluster = self._find(request["ClusterId"])
        level = int(request.get("StepConcurrencyLevel") or cluster.record.concurrency)
        _check_concurrency(level, ())
        with cluster.changed:
            cluster.check_open()
            cluster.record.concurrency = level
            cluster.commit()
        return {"StepConcurrencyLevel": level}

    def put_auto_termination_policy(self, request: Request) -> Answer:
        """Set the idle timeout of a cluster. AWS requires at least 60 s; this server allows less, for tests."""
        return self._set_idle_timeout(request, (request.get("AutoTerminationPolicy") or {}).get("IdleTimeout"))

    def get_auto_termination_policy(self, request: Request) -> Answer:
        seconds = self._find(request["ClusterId"]).record.idle_timeout
        return {"AutoTerminationPolicy": {"IdleTimeout": seconds}} if seconds else {}

    def remove_auto_termination_policy(self, request: Request) -> Answer:
        return self._set_idle_timeout(request, None)

    def _find(self, cluster_id: str) -> Cluster:
        return self._clusters.find(self._region, cluster_id)

    def _find_all(self, request: Request) -> list[Cluster]:
        return [self._find(cluster_id) for cluster_id in request["JobFlowIds"]]

    def _set(self, request: Request, name: str, value: bool) -> Answer:
        """Set the attribute `name` of all clusters' records. If any cluster is ending, only raise an `ApiError`."""
        clusters = self._find_all(request)
        for cluster in clusters:
            with cluster.changed:
                cluster.check_open()
        for cluster in clusters:
            with cluster.changed:
                setattr(cluster.record, name, value)
                cluster.commit()
        return None

    def _set_idle_timeout(self, request: Request, seconds: int | None) -> Answer:
        cluster = self._find(request["ClusterId"])
        with cluster.changed:
            cluster.record.idle_timeout = seconds
            cluster.commit()
        return {}

    def _list_nodes(self, member: str, request: Request, *, is_fleet: bool) -> Answer:
        cluster = self._find(request["ClusterId"])
        if cluster.record.nodes[0].is_fleet != is_fleet:
            kinds = ("fleets", "groups") if is_fleet else ("groups", "fleets")
            raise InvalidRequestError(f"Instance {kinds[0]} and instance {kinds[1]} are mutually exclusive.")
        with cluster.changed:
            return _page(member, [each.answer() for each in cluster.record.nodes], request)

    def _add_nodes(self, cluster: Cluster, added: list[NodeSet]) -> None:
        with cluster.changed:
            cluster.check_open()
            if any(each.is_fleet != cluster.record.nodes[0].is_fleet for each in added):
                raise InvalidRequestError("Instance fleets and instance groups are mutually exclusive.")
            check_roles([*cluster.record.nodes, *added])
            cluster.record.nodes += added
            if cluster.record.ready is not None:
                launch_missing(cluster)

    def _resize(self, cluster: Cluster, nodes: NodeSet, on_demand: int, spot: int) -> None:
        with cluster.changed:
            cluster.check_open()
            if nodes.role == "MASTER":
                raise ApiError("A master instance group or fleet cannot be resized.")
            nodes.resize(on_demand, spot, self._clusters.server.clock.now())
            if cluster.record.ready is not None:
                launch_missing(cluster)


def _action(method: Callable[..., Answer]) -> tuple[str, Callable[[_Session, Request], Answer]]:
    return "".join(word.capitalize() for word in method.__name__.split("_")), method


ACTIONS: Mapping[str, Callable[[_Session, Request], Answer]] = dict(
    _action(method) for name, method in vars(_Session).items() if not name.startswith("_")
)
"""The actions that this module implements. The keys are EMR's names of actions, such as `RunJobFlow`."""


def _nodes(cluster: Cluster, nodes_id: str) -> NodeSet:
    for nodes in cluster.record.nodes:
        if nodes.id == nodes_id:
            return nodes
    raise InvalidRequestError(f"Instance fleet id '{nodes_id}' is not valid.")


def _check_concurrency(level: int, steps: Sequence[Mapping[str, Any]]) -> None:
    if not 1 <= level <= MAX_CONCURRENCY:
        raise ApiError(f"StepConcurrencyLevel {level} is not between 1 and {MAX_CONCURRENCY}.")
    if level > 1 and any(step.get("ActionOnFailure", "TERMINATE_CLUSTER") != "CONTINUE" for step in steps):
        raise ApiError(_NO_CONCURRENT_FAILURE)


def _time(value: Any) -> float | None:
    """Convert a time in a request to seconds since 1970. SDKs send a number; other clients may send a string."""
    return None if value is None else parse_to_aware_datetime(value).timestamp()


def _page(member: str, items: list[dict[str, Any]], request: Request) -> dict[str, Any]:
    """Return one page of `items` under the key `member`. `Marker` encodes the number of items before the next page."""
    try:
        start = int(base64.b64decode(request.get("Marker") or b"MA==", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidRequestError("Marker is not valid.") from None
    answer: dict[str, Any] = {member: items[start : start + PAGE]}
    if len(items) > start + PAGE:
        answer["Marker"] = base64.b64encode(str(start + PAGE).encode()).decode()
    return answer
