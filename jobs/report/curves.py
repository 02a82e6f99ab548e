"""The rows of ``metrics.csv``: one for each evaluation, computed from the steps since the previous one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from jobs.metrics.schema import metrics_of
from jobs.metrics.training import EvaluationRow, StepRow


def evaluation_rows(rows: Iterable[StepRow]) -> Iterator[EvaluationRow]:
    """Yield one row for each evaluated step; `EvaluationRow` says how each column is computed.

    Args:
        rows: The metrics of all optimizer steps, in their order.
    """
    interval: list[StepRow] = []
    for row in rows:
        interval.append(row)
        if "valid_loss" in row:
            yield _evaluation_row(interval)
            interval = []


def _evaluation_row(interval: Sequence[StepRow]) -> EvaluationRow:
    last = cast("dict[str, float]", interval[-1])
    columns = metrics_of(EvaluationRow).items()
    found = {name: metric.over(interval) if metric.over else last.get(name) for name, metric in columns}
    return cast("EvaluationRow", {name: value for name, value in found.items() if value is not None})
