"""Instance fleets and groups: the requested capacity, and the instances that were launched for it."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from infra.emr.answers import ApiError, present

LacksCapacity = Callable[[str, str, str], bool]
"""A function of instance type, market and role. It returns whether EC2 lacks capacity for such instances."""

ROLES = ("MASTER", "CORE", "TASK")
_GROUP_NAMES = {"MASTER": "Master instance group", "CORE": "Core instance group", "TASK": "Task instance group"}
_RANDOM = random.SystemRandom()
_ENDED_REASON = {"Code": "CLUSTER_TERMINATED", "Message": "Job flow terminated"}


class HasStatus(Protocol):
    """A cluster, a fleet or group, or an instance: each has a state and a timeline."""

    state: str
    reason: dict[str, str]
    created: float
    ready: float | None
    ended: float | None


def status_answer(subject: HasStatus) -> dict[str, Any]:
    """Return the API's structure `Status`: the state, its reason, and the timeline."""
    timeline = {"CreationDateTime": subject.created, "ReadyDateTime": subject.ready, "EndDateTime": subject.ended}
    return {"State": subject.state, "StateChangeReason": subject.reason, "Timeline": present(timeline)}


@dataclass
class Instance:
    """A simulated EC2 instance. Its work is done by this machine or by a YARN host: see `infra/emr/machines.py`."""

    id: str
    ec2_id: str
    instance_type: str
    market: str
    weight: int
    created: float
    address: str
    state: str = "PROVISIONING"
    reason: dict[str, str] = field(default_factory=dict)
    ready: float | None = None
    ended: float | None = None
    notice: float | None = None
    """The time at which this spot instance will be lost. None if no notice of a loss has been given."""

    @property
    def public_address(self) -> str:
        """The public IP address. It is in a range that is reserved for documentation."""
        return f"203.0.113.{self.address.rpartition('.')[2]}"

    @property
    def public_dns(self) -> str:
        """The public DNS name. No DNS server resolves it."""
        return f"ec2-{self.public_address.replace('.', '-')}.compute-1.amazonaws.com"

    @property
    def is_running(self) -> bool:
        """Whether the instance is in use."""
        return self.state == "RUNNING"

    def end(self, now: float, reason: Mapping[str, str]) -> None:
        """Terminate the instance. Do nothing if it is already terminated."""
        if self.ended is None:
            self.state, self.reason, self.ended, self.notice = "TERMINATED", dict(reason), now, None

    def answer(self) -> dict[str, Any]:
        """Return the instance as the API's structure `Instance`, without the id of its fleet or group."""
        return {
            "Id": self.id,
            "Ec2InstanceId": self.ec2_id,
            "PublicDnsName": self.public_dns,
            "PublicIpAddress": self.public_address,
            "PrivateDnsName": f"ip-{self.address.replace('.', '-')}.ec2.internal",
            "PrivateIpAddress": self.address,
            "Status": status_answer(self),
            "Market": self.market,
            "InstanceType": self.instance_type,
            "EbsVolumes": [],
        }


@dataclass
class NodeSet:
    """An instance fleet or an instance group."""

    id: str
    role: str
    request: dict[str, Any]
    """The `InstanceFleetConfig` or `InstanceGroupConfig` of the request that created it."""
    created: float
    is_fleet: bool
    on_demand: int
    """Requested on-demand capacity, in units. In a group, each instance is one unit."""
    spot: int
    """Requested spot capacity, in units."""
    state: str = "PROVISIONING"
    reason: dict[str, str] = field(default_factory=dict)
    ready: float | None = None
    ended: float | None = None
    instances: list[Instance] = field(default_factory=list)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> NodeSet:
        """Return the fleet or group that was saved as a JSON value."""
        return cls(**{**value, "instances": [Instance(**each) for each in value["instances"]]})

    @property
    def live(self) -> list[Instance]:
        """The instances that have not been terminated."""
        return [each for each in self.instances if each.ended is None]

    def provided(self, market: str, state: str | None = None) -> int:
        """Return the capacity, in units, of the live instances in `market`: ON_DEMAND or SPOT.

        If `state` is given, count only instances in this state.
        """
        return sum(
            each.weight for each in self.live if each.market == market and (state is None or each.state == state)
        )

    def provision(self, now: float, is_short: LacksCapacity) -> list[tuple[str, str]]:
        """Launch the missing instances for which EC2 has capacity.

        For each market that lacks capacity, return the preferred instance type and the market.
        """
        missing = []
        for market, wanted in (("ON_DEMAND", self.on_demand), ("SPOT", self.spot)):
            units = wanted - self.provided(market)
            if units <= 0:
                continue
            choices = [choice for choice in self._choices() if not is_short(choice[0], market, self.role)]
            if choices:
                instance_type, weight = choices[0]
                count = math.ceil(units / weight)
                self.instances += [_new_instance(instance_type, market, weight, now) for _ in range(count)]
            else:
                missing.append((self._choices()[0][0], market))
        return missing

    def switch_to_on_demand(self) -> None:
        """Request on-demand capacity in place of the spot capacity that is missing."""
        lacking = self.spot - self.provided("SPOT")
        self.spot, self.on_demand = self.spot - lacking, self.on_demand + lacking

    def resize(self, on_demand: int, spot: int, now: float) -> None:
        """Change the requested units of capacity. Surplus instances end at once, the newest first."""
        self.on_demand, self.spot = on_demand, spot
        for each in reversed(self.live):
            wanted = spot if each.market == "SPOT" else on_demand
            if self.provided(each.market) - each.weight >= wanted:
                each.end(now, {"Message": "Instance was terminated by a resize"})

    def wishes(self) -> list[tuple[str, str, str]]:
        """Return the combinations of instance type, market and role in which instances may be launched here."""
        markets = [market for market, units in (("ON_DEMAND", self.on_demand), ("SPOT", self.spot)) if units]
        return [(choice, market, self.role) for choice, _ in self._choices() for market in markets]

    def bootstrap(self) -> None:
        """Change the state of the fleet or group, and of its new instances, to BOOTSTRAPPING."""
        self._enter("BOOTSTRAPPING", ("PROVISIONING",))

    def run(self, now: float) -> None:
        """Change the state of the fleet or group, and of its new instances, to RUNNING."""
        for each in self._enter("RUNNING", ("PROVISIONING", "BOOTSTRAPPING")):
            each.ready = now
        self.ready = self.ready or now

    def end(self, now: float, reason: Mapping[str, str] | None = None) -> None:
        """Terminate the fleet or group with its instances. Instances that have already ended do not change."""
        for each in self.instances:
            each.end(now, reason or _ENDED_REASON)
        self.state, self.reason, self.ended = "TERMINATED", dict(_ENDED_REASON), now

    def answer(self) -> dict[str, Any]:
        """Return the fleet or group as the API's structure `InstanceFleet` or `InstanceGroup`."""
        common = {"Id": self.id, "Name": self.request.get("Name") or _GROUP_NAMES[self.role]}
        common["Status"] = status_answer(self)
        return common | (self._fleet_answer() if self.is_fleet else self._group_answer())

    def _enter(self, state: str, before: tuple[str, ...]) -> list[Instance]:
        self.state = state
        changed = [each for each in self.instances if each.state in before]
        for each in changed:
            each.state = state
        return changed

    def _choices(self) -> list[tuple[str, int]]:
        """Return the requested instance types, in the order of preference, each with its units of capacity."""
        if not self.is_fleet:
            return [(self.request["InstanceType"], 1)]
        configs = self.request.get("InstanceTypeConfigs") or ()
        return [(each["InstanceType"], int(each.get("WeightedCapacity", 1)) or 1) for each in configs]

    def _fleet_answer(self) -> dict[str, Any]:
        same = ("InstanceType", "WeightedCapacity", "BidPrice", "BidPriceAsPercentageOfOnDemandPrice", "Priority")
        specifications = [
            {
                "WeightedCapacity": 1,
                **{name: each[name] for name in same if name in each},
                "Configurations": each.get("Configurations") or [],
                "EbsBlockDevices": _block_devices(each),
                "EbsOptimized": bool((each.get("EbsConfiguration") or {}).get("EbsOptimized", False)),
            }
            for each in self.request.get("InstanceTypeConfigs") or ()
        ]
        answer = {
            "InstanceFleetType": self.role,
            "TargetOnDemandCapacity": self.on_demand,
            "TargetSpotCapacity": self.spot,
            "ProvisionedOnDemandCapacity": self.provided("ON_DEMAND", "RUNNING"),
            "ProvisionedSpotCapacity": self.provided("SPOT", "RUNNING"),
            "InstanceTypeSpecifications": specifications,
        }
        launch = self.request.get("LaunchSpecifications")
        return answer | ({"LaunchSpecifications": launch} if launch else {})

    def _group_answer(self) -> dict[str, Any]:
        answer = {
            "Market": self.request.get("Market") or "ON_DEMAND",
            "InstanceGroupType": self.role,
            "InstanceType": self.request["InstanceType"],
            "RequestedInstanceCount": self.on_demand + self.spot,
            "RunningInstanceCount": sum(each.is_running for each in self.instances),
            "Configurations": self.request.get("Configurations") or [],
            "ConfigurationsVersion": 0,
            "EbsBlockDevices": _block_devices(self.request),
            "EbsOptimized": bool((self.request.get("EbsConfiguration") or {}).get("EbsOptimized", False)),
            "ShrinkPolicy": {},
        }
        return answer | ({"BidPrice": self.request["BidPrice"]} if "BidPrice" in self.request else {})


def read_nodes(instances: Mapping[str, Any], now: float) -> list[NodeSet]:
    """Return the fleets or groups that the member `Instances` of a RunJobFlow request describes.

    The fleet or group of the primary node comes first.

    If the request has neither fleets nor groups, groups are made from its instance types and its `InstanceCount`. The
    default is one primary node.

    Raises:
        ApiError: if the request has both fleets and groups, or a combination or size that EMR does not allow.
    """
    fleets, groups = list(instances.get("InstanceFleets") or ()), list(instances.get("InstanceGroups") or ())
    if fleets and groups:
        raise ApiError("Instance fleets and instance groups are mutually exclusive.")
    if not fleets and not groups:
        groups = _plain_groups(instances)
    nodes = [new_fleet(each, now) for each in fleets] + [new_group(each, now) for each in groups]
    nodes.sort(key=lambda each: ROLES.index(each.role))
    check_roles(nodes)
    return nodes


def check_roles(nodes: list[NodeSet]) -> None:
    """Raise an `ApiError` if EMR does not allow these fleets or groups in one cluster."""
    roles = [each.role for each in nodes]
    kind = "fleet" if nodes[0].is_fleet else "group"
    if roles.count("MASTER") != 1:
        raise ApiError(f"A cluster needs exactly one master instance {kind}.")
    if roles.count("CORE") > 1 or (kind == "fleet" and roles.count("TASK") > 1):
        raise ApiError(f"A cluster may have at most one core instance {kind}, and at most one task instance fleet.")
    if nodes[0].on_demand + nodes[0].spot not in (1, 3):
        raise ApiError("Master instance group must have exactly 3 instances for HA clusters.")


def new_fleet(config: Mapping[str, Any], now: float) -> NodeSet:
    """Return the fleet that an `InstanceFleetConfig` requests."""
    on_demand, spot = int(config.get("TargetOnDemandCapacity") or 0), int(config.get("TargetSpotCapacity") or 0)
    role = str(config["InstanceFleetType"])
    if on_demand + spot < 1:
        raise ApiError(f"At least one of TargetOnDemandCapacity and TargetSpotCapacity of {role} must be above 0.")
    if not config.get("InstanceTypeConfigs"):
        raise ApiError(f"The instance fleet {role} has no InstanceTypeConfigs.")
    return NodeSet(new_id("if-"), role, dict(config), now, is_fleet=True, on_demand=on_demand, spot=spot)


def new_group(config: Mapping[str, Any], now: float) -> NodeSet:
    """Return the group that an `InstanceGroupConfig` requests."""
    role, count = str(config["InstanceRole"]), int(config["InstanceCount"])
    if count < 0 or (count == 0 and role == "MASTER"):
        raise ApiError(
            f"The InstanceCount {count} of the instance group {role} is too small; use 0 or more (MASTER: 1 or more)."
        )
    is_spot = config.get("Market") == "SPOT"
    on_demand, spot = (0, count) if is_spot else (count, 0)
    return NodeSet(new_id("ig-"), role, dict(config), now, is_fleet=False, on_demand=on_demand, spot=spot)


def _plain_groups(instances: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the groups of a request that only has MasterInstanceType, SlaveInstanceType and InstanceCount."""
    primary = instances.get("MasterInstanceType") or "m5.xlarge"
    groups = [{"InstanceRole": "MASTER", "InstanceType": primary, "InstanceCount": 1}]
    workers = int(instances.get("InstanceCount") or 1) - 1
    if workers > 0:
        core = instances.get("SlaveInstanceType") or primary
        groups.append({"InstanceRole": "CORE", "InstanceType": core, "InstanceCount": workers})
    return groups


def _new_instance(instance_type: str, market: str, weight: int, now: float) -> Instance:
    address = f"10.0.{_RANDOM.randint(0, 255)}.{_RANDOM.randint(4, 254)}"
    ec2_id = f"i-0{_RANDOM.getrandbits(64):016x}"
    return Instance(new_id("ci-"), ec2_id, instance_type, market, weight, now, address)


def new_id(prefix: str) -> str:
    """Return a new id such as j-1A2B3C4D5E6F7."""
    return prefix + "".join(_RANDOM.choices(string.ascii_uppercase + string.digits, k=13))


def _block_devices(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    devices: list[dict[str, Any]] = []
    for each in (config.get("EbsConfiguration") or {}).get("EbsBlockDeviceConfigs") or ():
        for _ in range(int(each.get("VolumesPerInstance", 1))):
            name = f"/dev/sd{string.ascii_lowercase[(len(devices) + 1) % 26]}"
            devices.append({"VolumeSpecification": each["VolumeSpecification"], "Device": name})
    return devices
