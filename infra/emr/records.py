"""The records of clusters and steps, which are kept on disk. Their classes also build the API's answers.

Times are seconds since 1970, as in EMR's JSON. A record contains the request that created the cluster or step, because
the API's answers repeat parts of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.emr.answers import ACCOUNT, present
from infra.emr.nodes import NodeSet, status_answer

ENDED = frozenset({"TERMINATED", "TERMINATED_WITH_ERRORS"})
ENDING = ENDED | {"TERMINATING"}
_REPEATED = (
    "AutoScalingRole",
    "CustomAmiId",
    "EbsRootVolumeIops",
    "EbsRootVolumeSize",
    "EbsRootVolumeThroughput",
    "KerberosAttributes",
    "LogEncryptionKmsKeyId",
    "LogUri",
    "OSReleaseLabel",
    "ReleaseLabel",
    "RepoUpgradeOnBoot",
    "ScaleDownBehavior",
    "SecurityConfiguration",
    "ServiceRole",
)
"""Members of a RunJobFlow request that DescribeCluster returns unchanged."""
PRIMARY_LOST = "The master node was terminated and cannot recover"
ACTIVE_STEP = frozenset({"PENDING", "RUNNING"})


@dataclass
class StepRecord:
    """The record of a step."""

    id: str
    request: dict[str, Any]
    """The `StepConfig` from the request that added the step."""
    created: float
    state: str = "PENDING"
    message: str = ""
    started: float | None = None
    ended: float | None = None
    failure: dict[str, str] = field(default_factory=dict)
    """`FailureDetails` of the API."""

    @property
    def action_on_failure(self) -> str:
        """What a failure of the step does to the cluster."""
        return str(self.request.get("ActionOnFailure") or "TERMINATE_CLUSTER")

    def finish(self, state: str, now: float, message: str = "") -> None:
        """Set the step's final state, with its end time and a message."""
        self.state, self.message, self.ended = state, message, now

    def answer(self) -> dict[str, Any]:
        """Return the step as the API's structure `Step`, which has the same members as `StepSummary`."""
        jar = self.request["HadoopJarStep"]
        timeline = {"CreationDateTime": self.created, "StartDateTime": self.started, "EndDateTime": self.ended}
        config = {
            "Jar": jar.get("Jar", ""),
            "Properties": {each.get("Key", ""): each.get("Value", "") for each in jar.get("Properties") or ()},
            "MainClass": jar.get("MainClass"),
            "Args": jar.get("Args") or [],
        }
        status = {
            "State": self.state,
            "StateChangeReason": {"Message": self.message} if self.message else {},
            "FailureDetails": self.failure or None,
            "Timeline": present(timeline),
        }
        return {
            "Id": self.id,
            "Name": self.request["Name"],
            "Config": present(config),
            "ActionOnFailure": self.action_on_failure,
            "Status": present(status),
        }


@dataclass
class ClusterRecord:
    """The record of a cluster, with its steps and nodes."""

    id: str
    region: str
    request: dict[str, Any]
    """The request of RunJobFlow."""
    created: float
    keep_alive: bool
    protected: bool
    concurrency: int
    tags: dict[str, str]
    nodes: list[NodeSet]
    """The cluster's instance fleets or groups."""
    idle_timeout: int | None = None
    visible: bool = True
    replace_unhealthy: bool = True
    state: str = "STARTING"
    reason: dict[str, str] = field(default_factory=dict)
    error_details: list[dict[str, Any]] = field(default_factory=list)
    ready: float | None = None
    ended: float | None = None
    steps: list[StepRecord] = field(default_factory=list)

    @property
    def arn(self) -> str:
        """The cluster's ARN."""
        return f"arn:aws:elasticmapreduce:{self.region}:{ACCOUNT}:cluster/{self.id}"

    @property
    def log_uri(self) -> str:
        """The request's LogUri, without a slash at its end. Empty if logs are not uploaded."""
        return str(self.request.get("LogUri") or "").rstrip("/")

    @property
    def zone(self) -> str:
        """The availability zone."""
        return str(self._instances("Placement", {}).get("AvailabilityZone") or f"{self.region}a")

    def matched(self) -> dict[str, Any]:
        """Return the cluster's values, by name, for comparison with the patterns in `Fault.match`."""
        return {"Id": self.id, "ClusterId": self.id, "Name": self.request["Name"], "Tags": self.tags}

    def step(self, step_id: str) -> StepRecord | None:
        """Return the step with this id, or None."""
        return next((step for step in self.steps if step.id == step_id), None)

    def summary(self) -> dict[str, Any]:
        """Return the cluster as the API's structure `ClusterSummary`."""
        status = status_answer(self)
        if self.error_details:
            status["ErrorDetails"] = self.error_details
        return {
            "Id": self.id,
            "Name": self.request["Name"],
            "Status": status,
            "NormalizedInstanceHours": 0,
            "ClusterArn": self.arn,
        }

    def answer(self) -> dict[str, Any]:
        """Return the cluster as the API's structure `Cluster`."""
        request = self.request
        return {
            **self.summary(),
            **{name: request[name] for name in _REPEATED if name in request},
            "Ec2InstanceAttributes": self._ec2_attributes(),
            "InstanceCollectionType": "INSTANCE_FLEET" if self.nodes[0].is_fleet else "INSTANCE_GROUP",
            "AutoTerminate": not self.keep_alive,
            "TerminationProtected": self.protected,
            "UnhealthyNodeReplacement": self.replace_unhealthy,
            "VisibleToAllUsers": self.visible,
            "Applications": [{"Name": each["Name"]} for each in request.get("Applications") or () if "Name" in each],
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
            "MasterPublicDnsName": next((each.public_dns for each in self.nodes[0].instances), ""),
            "Configurations": request.get("Configurations") or [],
            "StepConcurrencyLevel": self.concurrency,
            "PlacementGroups": request.get("PlacementGroupConfigs") or [],
        }

    def _instances(self, name: str, default: Any = None) -> Any:
        return self.request["Instances"].get(name) or default

    def _ec2_attributes(self) -> dict[str, Any]:
        subnets = self._instances("Ec2SubnetIds", [])
        groups = ("EmrManagedMasterSecurityGroup", "EmrManagedSlaveSecurityGroup", "ServiceAccessSecurityGroup")
        attributes = {
            "Ec2KeyName": self._instances("Ec2KeyName"),
            "Ec2SubnetId": self._instances("Ec2SubnetId") or next(iter(subnets), None),
            "RequestedEc2SubnetIds": subnets,
            "Ec2AvailabilityZone": self.zone,
            "RequestedEc2AvailabilityZones": [],
            "IamInstanceProfile": self.request.get("JobFlowRole"),
            "AdditionalMasterSecurityGroups": self._instances("AdditionalMasterSecurityGroups", []),
            "AdditionalSlaveSecurityGroups": self._instances("AdditionalSlaveSecurityGroups", []),
            **{name: self._instances(name) for name in groups},
        }
        return present(attributes)


def lose_primary(record: ClusterRecord, now: float) -> None:
    """Record that a cluster lost its primary node. This is the case if the server that ran the cluster was killed."""
    for step in record.steps:
        if step.state in ACTIVE_STEP:
            step.finish("CANCELLED", now, "Job terminated")
    for nodes in record.nodes:
        nodes.end(now)
    record.state, record.ended = "TERMINATED_WITH_ERRORS", now
    record.reason = {"Code": "INSTANCE_FAILURE", "Message": PRIMARY_LOST}


def to_json(record: ClusterRecord) -> dict[str, Any]:
    """Return the record as a JSON value."""
    return asdict(record)


def from_json(value: Mapping[str, Any]) -> ClusterRecord:
    """Return the record that `to_json` turned into `value`. Raise a TypeError or LookupError if `value` is invalid."""
    nodes = [NodeSet.from_json(each) for each in value["nodes"]]
    return ClusterRecord(**{**value, "nodes": nodes, "steps": [StepRecord(**each) for each in value["steps"]]})
