"""The cases of ``make chaos-airflow``: each distinct call of a run to EMR and S3, with each way to disturb it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FAULTS = ("dropped-before", "dropped-after", "denied")
"""Disturbances of the call itself, which a run without Airflow's servers meets as well."""
INTERVENTIONS = ("task killed", "marked failed", "marked success", "cleared")
"""What happens to the task or the run in a live Airflow, while the call waits for its answer."""
DAEMONS = ("scheduler killed", "triggerer killed")
"""The same, for the calls that change something."""
_READS = ("Describe", "List", "Get", "Head")


@dataclass(frozen=True)
class Call:
    """A call of the AWS API that a run makes: `caller` is `client` for Airflow, and `step` for the job."""

    service: str
    operation: str
    caller: str

    @property
    def changes(self) -> bool:
        """Whether the call changes something."""
        return not self.operation.startswith(_READS)


@dataclass(frozen=True)
class Case:
    """A call, and how it is disturbed."""

    call: Call
    disturbance: str

    @property
    def name(self) -> str:
        """Name of the case, which is the same whenever the cases are planned."""
        return f"{self.disturbance} {self.call.caller} {self.call.service} {self.call.operation}"

    @property
    def short(self) -> str:
        """A name for the case's run."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:10]

    @property
    def needs_servers(self) -> bool:
        """Whether the case needs a live Airflow."""
        return self.disturbance not in FAULTS


def calls_of(recorded: Iterable[Mapping[str, Any]]) -> list[Call]:
    """Return the distinct calls of Airflow and of the steps among those that the embedded EMR has recorded."""
    found = {
        Call(each["service"], each["operation"], each["caller"])
        for each in recorded
        if each["caller"] in ("client", "step") and each["service"] in ("emr", "s3")
    }
    return sorted(found, key=lambda call: tuple(asdict(call).values()))


def cases_of(calls: Sequence[Call], disturbances: Sequence[str]) -> list[Case]:
    """Return all cases: nobody kills or marks a task of Airflow at a call that a step makes."""
    return [
        Case(call, disturbance)
        for disturbance in disturbances
        for call in calls
        if disturbance in FAULTS or (call.caller == "client" and (disturbance in INTERVENTIONS or call.changes))
    ]


def sample(cases: Sequence[Case], number: int, seed: int) -> list[Case]:
    """Return `number` of the cases, spread over the disturbances; all of them for 0."""
    if not number or number >= len(cases):
        return list(cases)
    draw = random.Random(seed)
    groups: dict[str, list[Case]] = {}
    for case in draw.sample(list(cases), len(cases)):
        groups.setdefault(case.disturbance, []).append(case)
    chosen: list[Case] = []
    while len(chosen) < number:
        for group in groups.values():
            if group and len(chosen) < number:
                chosen.append(group.pop())
    return chosen
