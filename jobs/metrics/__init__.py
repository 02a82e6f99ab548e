"""Every metric that a run writes: its unit, its meaning and where it is shown.

The rows of a table, or the statistics of a step, are described by a ``TypedDict``: each field carries a `Metric`. All
lists of metrics are read from these classes: for the columns of ``metrics.csv``, the tables of ``stats.txt``, the model
card, Airflow's summary, the checker, TensorBoard and the reference in ``docs/``.

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
    """As a column of the tables in ``stats.txt``. These tables do not show all columns of the CSV files."""


Order = Enum("Order", "ANY INCREASING NOT_DECREASING")
"""How a column of ``metrics.csv`` must change from row to row."""


@dataclass(frozen=True)
class Metric:
    """The description of one value."""

    unit: str
    """The unit; empty for numbers without a unit, and for texts."""
    meaning: str
    show: Show = Show.NOWHERE
    baseline: str = ""
    """If the metric is the loss of a baseline, the name of the baseline in log lines; else empty."""
    must_beat: bool = False
    """Whether the checker reports a defect if the validation loss never falls below this baseline."""
    chart: str = ""
    """The group of charts in TensorBoard; empty if TensorBoard does not show the metric."""
    order: Order = Order.ANY
    over: Callable[[Sequence[Mapping[str, Any]]], float] | None = None
    """A function that computes a value in ``metrics.csv`` from the rows of all steps since the previous evaluation. If
    it is None, the value of the last of these steps is taken."""


@cache
def metrics_of(table: type) -> Mapping[str, Metric]:
    """Return a dict from the name of each field to its metric. `table` is one of the ``TypedDict`` classes."""
    hints = get_type_hints(table, include_extras=True)
    return MappingProxyType({name: hint.__metadata__[0] for name, hint in hints.items()})


def names(table: type, shown: Show) -> tuple[str, ...]:
    """Return the names of the metrics in `table` that appear in at least one of the outputs `shown`."""
    return tuple(name for name, metric in metrics_of(table).items() if shown & metric.show)


def chosen(stats: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """Return those of the `wanted` metrics that `stats` contains, in the order of `wanted`."""
    return {name: stats[name] for name in wanted if name in stats}
