"""Reads how long a run's instances and steps ran on each cluster, from the record of its clusters.

When a cluster has ended, its record contains the times that EMR reported. Until then, all requested instances count,
from the moment of the request.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jobs.errors import NightjarError
from jobs.lake.layout import Run
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import as_number
from jobs.prices.book import ON_DEMAND, SPOT, Market

_FLEETS: tuple[tuple[str, str | None, Market], ...] = (
    ("primary_instance_types", None, ON_DEMAND),
    ("core_instance_types", "core_instances", ON_DEMAND),
    ("task_instance_types", "task_instances", SPOT),
)
"""For each group of a cluster's instances: the setting with the types, the setting with the number, and the market.

The group of the primary node has no setting with the number: it is always one instance.
"""


@dataclass(frozen=True)
class InstanceSpan:
    """Instances of one type and market that ran at the same time."""

    type: str
    market: Market
    started: float
    """Seconds since 1970, like `ended`."""
    ended: float
    count: int = 1

    @property
    def name(self) -> str:
        """Type and market, as the record of clusters names them."""
        return f"{self.type} {self.market}"

    def overlap(self, started: float, ended: float) -> float:
        """Return the instance seconds of these instances between two moments."""
        return self.count * max(0.0, min(self.ended, ended) - max(self.started, started))


@dataclass(frozen=True)
class StepSpan:
    """An attempt at a step, with the times that EMR reported."""

    name: str
    started: float
    ended: float


@dataclass(frozen=True)
class ClusterUse:
    """What one cluster ran: its instances and steps, with their times."""

    region: str
    disk_gb: float
    """Size of the system disk of each instance, in GB."""
    instances: tuple[InstanceSpan, ...]
    steps: tuple[StepSpan, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    """A dict from type and market (`InstanceSpan.name`) to USD per hour, at the prices known when the cluster ended."""
    bounds: tuple[str, ...] = ()
    """The keys of `rates` whose rate is an upper bound."""
    is_final: bool = True
    """Whether the cluster has ended."""
    is_known: bool = True
    """False if EMR did not report how long the instances ran."""
    is_embedded: bool = False
    """Whether it was a cluster of the embedded EMR, which costs nothing."""


_USE = TypeAdapter(ClusterUse)


def read_records(run: Run, store: Store = ENVIRONMENT) -> list[dict[str, Any]]:
    """Return the records of a run's clusters. Records that cannot be read are left out."""
    found = []
    for file in store.list_files(run.clusters):
        with suppress(OSError, NightjarError):
            record = store.read_json(file.uri)
            if isinstance(record, dict):
                found.append(record)
    return found


def read_cluster_uses(
    run: Run,
    config: Mapping[str, Any],
    store: Store = ENVIRONMENT,
    *,
    is_running: bool = True,
    now: float | None = None,
) -> list[ClusterUse]:
    """Return the use of each cluster that a run created, from the records in the run's folder.

    Args:
        run: The run.
        config: The run's stored configuration.
        store: The store of the lake.
        is_running: Whether a cluster without a recorded end is assumed to be running. If not, it is left out.
        now: The current time, in seconds since 1970.
    """
    return cluster_uses(read_records(run, store), config, is_running=is_running, now=now)


def cluster_uses(
    records: Iterable[Mapping[str, Any]],
    config: Mapping[str, Any],
    *,
    is_running: bool = True,
    now: float | None = None,
) -> list[ClusterUse]:
    """Return the use of each cluster that a run created. Clusters that the user provided are left out.

    A record with invalid values is left out, too.

    Args:
        records: The records of the run's clusters.
        config: The run's stored configuration.
        is_running: Whether a cluster without a recorded end is assumed to be running. If not, it is left out.
        now: The current time, in seconds since 1970.
    """
    moment, found = time.time() if now is None else now, list[ClusterUse]()
    for record in records:
        with suppress(ValidationError):
            if not record.get("borrowed"):
                is_embedded = record.get("is_embedded") is True
                for use in _use_of(record, config, moment if is_running else None):
                    found.append(replace(use, is_embedded=use.is_embedded or is_embedded))
    return found


def _use_of(record: Mapping[str, Any], config: Mapping[str, Any], now: float | None) -> Iterator[ClusterUse]:
    if record.get("used") is not None:
        yield _USE.validate_python(record["used"])
    elif record.get("instance_seconds"):  # written by an earlier version, without times
        yield ClusterUse(str(record.get("region") or "?"), 0.0, tuple(_of_earlier(record["instance_seconds"])))
    elif record.get("cluster_id") and record.get("ended"):
        yield ClusterUse("?", 0.0, (), is_known=False)
    elif now is not None and record.get("cluster_id"):
        with suppress(ValueError, TypeError, OverflowError):
            asked = datetime.fromisoformat(record["asked"]).timestamp()
            yield as_requested(config, str(record.get("region") or "?"), asked, now)


def _of_earlier(instance_seconds: Mapping[str, Any]) -> Iterator[InstanceSpan]:
    for name, value in instance_seconds.items():
        if (seconds := as_number(value)) is not None:
            instance_type, _, market = name.partition(" ")
            yield InstanceSpan(instance_type, SPOT if market == SPOT else ON_DEMAND, 0.0, seconds)


def as_requested(config: Mapping[str, Any], region: str, started: float, ended: float) -> ClusterUse:
    """Return the use of a cluster without a recorded end.

    It is assumed that all instances in the configuration ran from `started` to `ended`. If the configuration allows
    several instance types for an instance, the first one is assumed.
    """
    cluster = config.get("cluster")
    cluster = cluster if isinstance(cluster, dict) else {}
    spans = []
    for types, number, market in _FLEETS:
        count = 1 if number is None else int(as_number(cluster.get(number)) or 0)
        named = cluster.get(types)
        first = str(named[0]) if isinstance(named, list | tuple) and named else "?"
        if count:
            spans.append(InstanceSpan(first, market, started, ended, count))
    return ClusterUse(region, as_number(cluster.get("root_volume_gb")) or 0.0, tuple(spans), is_final=False)
