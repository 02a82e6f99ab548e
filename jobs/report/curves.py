"""The rows of ``metrics.csv``: one for each evaluation, computed from the steps since the previous one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from jobs.metrics.schema import metrics_of
from jobs.metrics.training import CurveRow, StepRow


def curve_rows(rows: Iterable[StepRow]) -> Iterator[CurveRow]:
    """Yield one row for each evaluated step; `CurveRow` says how each column is computed.

    Args:
        rows: The metrics of all optimizer steps, in their order.
    """
    interval: list[StepRow] = []
    for row in rows:
        interval.append(row)
        if "valid_loss" in row:
            yield _curve_row(interval)
            interval = []


def _curve_row(interval: Sequence[StepRow]) -> CurveRow:
    last = cast("dict[str, float]", interval[-1])
    columns = metrics_of(CurveRow).items()
    found = {name: metric.over(interval) if metric.over else last.get(name) for name, metric in columns}
    return cast("CurveRow", {name: value for name, value in found.items() if value is not None})
