"""Every metric that a run writes: its unit, its meaning and where it is shown.

A row, or the statistics of a step, is a ``TypedDict`` whose fields carry a `Metric`. All lists of names are read from
these classes: the columns of ``metrics.csv``, the tables of ``stats.txt``, the model card, Airflow's summary, the
checker, TensorBoard and the reference in ``docs/``.

The modules of this package import only the standard library, since Airflow's scheduler loads them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, Flag, auto
from functools import cache
from types import MappingProxyType
from typing import Any, get_type_hints


class Show(Flag):
    """Places that show a metric besides the file that holds it."""

    NOWHERE = 0
    SUMMARY = auto()
    """At the top of ``stats.json`` and ``stats.txt``, and in the summary of Airflow's task ``pull_stats``."""
    CARD = auto()
    """In ``training_stats.json`` beside the model."""
    TABLE = auto()
    """As a column of the tables in ``stats.txt``, which leave out other columns of the CSV files."""


Order = Enum("Order", "ANY INCREASING NOT_DECREASING")
"""How a column of ``metrics.csv`` must change from row to row."""


@dataclass(frozen=True)
class Metric:
    """The description of one number."""

    unit: str
    """Empty for numbers without a unit, and for texts."""
    meaning: str
    show: Show = Show.NOWHERE
    baseline: str = ""
    """How log lines name this baseline, if the metric is the loss of one."""
    must_beat: bool = False
    """The checker reports a validation loss that never falls below this baseline."""
    chart: str = ""
    """The group of charts in TensorBoard; empty if TensorBoard does not show the metric."""
    order: Order = Order.ANY
    over: Callable[[Sequence[Mapping[str, Any]]], float] | None = None
    """Compute a column of ``metrics.csv`` from the rows of several steps. Without this function,
    the value of the last row is taken."""


@cache
def metrics_of(table: type) -> Mapping[str, Metric]:
    """Return the metrics of a row or of a step's statistics by name, in the order of its fields."""
    hints = get_type_hints(table, include_extras=True)
    return MappingProxyType({name: hint.__metadata__[0] for name, hint in hints.items()})


def names(table: type, shown: Show) -> tuple[str, ...]:
    """Return the names of those metrics of a table that are shown in a place."""
    return tuple(name for name, metric in metrics_of(table).items() if shown & metric.show)


def chosen(stats: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """Return the `wanted` metrics that `stats` has, in the order of `wanted`."""
    return {name: stats[name] for name in wanted if name in stats}
