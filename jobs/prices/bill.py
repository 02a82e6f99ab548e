"""The bill of a run: instance seconds and cost, by step, by type of instance, and in total.

A bill contains what AWS charges for instances: EC2, EMR and the system disks. It does not contain what AWS charges by
the month, such as the network and the lake.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.errors import counted
from jobs.prices.book import PriceBook, Rate, explain_missing
from jobs.prices.metering import ClusterUse, InstanceSpan

LEAST_SECONDS = 60.0
"""The minimum time that AWS charges for an instance."""
WITHOUT_STEP = "start and end"
"""The name of the part of a bill that belongs to no step: the time in which clusters start, wait for steps, and end."""


@dataclass(frozen=True)
class Charge:
    """Instance seconds and what they cost."""

    seconds: float = 0.0
    usd: float | None = None
    """The cost in USD. None if a price is not known."""


@dataclass(frozen=True)
class Bill:
    """The instance seconds and the cost of a run's clusters."""

    total: Charge = Charge()
    steps: Mapping[str, Charge] = field(default_factory=dict)
    """A dict from steps to charges. The key `WITHOUT_STEP` has the rest. Empty if the steps' times are not known."""
    instances: Mapping[str, Charge] = field(default_factory=dict)
    """A dict from the type and market of instances, such as ``m5.xlarge spot``, to charges."""
    at_most: bool = False
    """Whether the cost is an upper bound, because a spot price is not known."""
    is_final: bool = True
    """Whether all clusters have ended."""
    missing: tuple[str, ...] = ()
    """The prices that are not known."""
    num_unknown: int = 0
    """The number of clusters for which EMR did not report how long their instances ran."""
    is_embedded: bool = False
    """Whether all clusters were clusters of the embedded EMR. The costs are then what AWS would charge."""

    @property
    def cost_usd(self) -> float | None:
        """The cost of the clusters: 0 on the embedded EMR. None if a price is not known."""
        return 0.0 if self.is_embedded else self.total.usd

    @property
    def problem(self) -> str | None:
        """One line that says why the cost is not known, and what to do. None if the cost is known."""
        if self.num_unknown:
            of = counted(self.num_unknown, "cluster")
            return f"EMR did not report how long the instances of {of} ran; look up the time in EMR's console"
        return explain_missing(self.missing) if self.missing else None

    def to_json(self) -> dict[str, Any]:
        """Return the bill in the form in which the statistics of a run contain it."""
        return {
            "instance_seconds": self.total.seconds,
            "usd": self.total.usd,
            "at_most": self.at_most,
            "is_final": self.is_final,
            "is_embedded": self.is_embedded,
            "steps": {name: _rounded(charge) for name, charge in self.steps.items()},
            "instances": {name: _rounded(charge) for name, charge in self.instances.items()},
            "problem": None if self.is_embedded else self.problem,
        }


def _rounded(charge: Charge) -> dict[str, float | None]:
    return {"instance_seconds": charge.seconds, "usd": charge.usd}


def make_bill(uses: Iterable[ClusterUse], prices: Callable[[], PriceBook]) -> Bill:
    """Return the bill for the clusters `uses`. Call `prices` only if the record of a cluster lacks a rate."""
    seconds, usd = defaultdict[str, float](float), defaultdict[str, float](float)
    by_type, usd_by_type = defaultdict[str, float](float), defaultdict[str, float](float)
    missing, at_most, is_final, has_steps, num_unknown = list[str](), False, True, False, 0
    found = list(uses)
    for use in found:
        num_unknown += not use.is_known
        is_final, has_steps = is_final and use.is_final, has_steps or bool(use.steps)
        for span in use.instances:
            rate = rate_of(use, span, prices)
            missing += rate.missing
            at_most = at_most or rate.at_most
            hourly = rate.usd or 0.0
            whole = span.overlap(span.started, span.ended)
            charged = max(whole, LEAST_SECONDS * span.count)
            parts = {step.name: 0.0 for step in use.steps}
            for step in use.steps:
                parts[step.name] += span.overlap(step.started, step.ended)
            for name, part in parts.items():
                seconds[name] += part
                usd[name] += part * hourly / 3600
            in_steps = sum(parts.values())
            seconds[WITHOUT_STEP] += whole - in_steps
            usd[WITHOUT_STEP] += (charged - in_steps) * hourly / 3600
            by_type[span.name] += whole
            usd_by_type[span.name] += charged * hourly / 3600

    def charges(times: Mapping[str, float], costs: Mapping[str, float]) -> dict[str, Charge]:
        return {name: charge(each, costs[name]) for name, each in times.items()}

    def charge(time: float, cost: float) -> Charge:
        return Charge(round(time, 1), None if missing or num_unknown else round(cost, 6))

    total = charge(sum(seconds.values()), sum(usd.values()))
    steps = charges(seconds, usd) if has_steps else {}
    return Bill(
        total,
        steps,
        charges(by_type, usd_by_type),
        at_most,
        is_final,
        tuple(dict.fromkeys(missing)),
        num_unknown,
        is_embedded=bool(found) and all(use.is_embedded for use in found),
    )


def rate_of(use: ClusterUse, span: InstanceSpan, prices: Callable[[], PriceBook]) -> Rate:
    """Return the cost per hour of one instance of `span`.

    It is the rate recorded when the cluster ended. If none was recorded, it is computed from the current `prices`.
    """
    if (recorded := use.rates.get(span.name)) is not None:
        return Rate(recorded, span.name in use.bounds)
    return prices().rate(span.type, span.market, use.region, use.disk_gb)
