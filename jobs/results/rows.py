"""Reads metrics and tables from a run's folder.

Metrics are rows: one for each optimizer step, or one for each evaluation. Tables are CSV files of the pipeline steps.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from jobs.errors import DamagedError, reading
from jobs.lake.files import FileInfo
from jobs.lake.layout import MANIFEST, Run
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import as_number
from jobs.lake.uri import base_name, join
from jobs.metrics import metrics_of
from jobs.metrics.columns import EvaluationRow, StepRow

Row = Mapping[str, Any]
MAX_INTERVALS = 100
"""Maximum number of rows of metrics that are shown for a training without an evaluation."""


def read_parts(run: Run, store: Store = ENVIRONMENT, uris: Sequence[str] | None = None) -> list[StepRow]:
    """Return the metrics that a training has written so far, one row for each optimizer step.

    S3 cannot append to an object. So training writes the rows of a few seconds together, as an object called a part:
    ``part-<attempt>-<writer>-<number>.jsonl``. All parts are read or, if `uris` is given, only the parts at these URIs.
    If an attempt resumes at an earlier step, its rows replace those that previous attempts wrote from that step on.
    """
    rows: list[StepRow] = []
    attempt = ""
    # The listing is sorted by name, and so by attempt.
    for uri in (info.uri for info in store.list_files(run.metrics_parts)) if uris is None else uris:
        part = _parse(uri, store)
        this_attempt = _attempt_of(uri)
        if part and this_attempt != attempt:
            attempt = this_attempt
            rows = [row for row in rows if row["step"] < part[0]["step"]]
        rows += part
    return rows


def _attempt_of(uri: str) -> str:
    return base_name(uri).rpartition("-")[0]


def _parse(uri: str, store: Store) -> list[StepRow]:
    try:
        rows = [json.loads(line) for line in store.read_bytes(uri).splitlines()]
        found = [{key: math.nan if value is None else value for key, value in row.items()} for row in rows]
        return cast("list[StepRow]", found)
    except (ValueError, AttributeError):
        raise DamagedError(f"{uri}: not lines of JSON; delete it and run again") from None


def evaluation_rows(rows: Iterable[StepRow]) -> Iterator[EvaluationRow]:
    """Yield one row for each evaluation, made from the rows of the optimizer steps since the previous evaluation."""
    intervals = _Intervals()
    for row in rows:
        if (found := intervals.add(row)) is not None:
            yield found


class _Intervals:
    """Collects the rows of the optimizer steps since the last evaluation."""

    def __init__(self) -> None:
        self.rows: list[StepRow] = []
        self._seconds = 0.0

    def add(self, row: StepRow) -> EvaluationRow | None:
        """Add the row of a step. If the model was evaluated after this step, return one row for all collected steps.

        Return None otherwise.
        """
        self.rows.append(row)
        if "valid_loss" not in row:
            return None
        found = _row_of(self.rows, self._seconds)
        self.rows, self._seconds = [], row["seconds"]
        return found


def interval_rows(rows: Sequence[StepRow]) -> Iterator[EvaluationRow]:
    """Divide a training without evaluations into at most `MAX_INTERVALS` intervals of steps. Yield a row for each."""
    size = max(1, -(-len(rows) // MAX_INTERVALS))
    seconds = 0.0
    for start in range(0, len(rows), size):
        interval = rows[start : start + size]
        yield _row_of(interval, seconds)
        seconds = interval[-1]["seconds"]


def _row_of(interval: Sequence[StepRow], seconds: float) -> EvaluationRow:
    """Return one row for an interval of steps. The interval began `seconds` seconds after the start of the training."""
    last = {**cast("dict[str, float]", interval[-1]), "interval_seconds": interval[-1]["seconds"] - seconds}
    columns = metrics_of(EvaluationRow).items()
    found = {name: metric.over(interval) if metric.over else last.get(name) for name, metric in columns}
    return cast("EvaluationRow", {name: value for name, value in found.items() if value is not None})


class LiveParts:
    """The metrics of a training in progress.

    Each part (see `read_parts`) is read only once. When a new attempt has begun, all parts are read again.

    Only the rows of evaluations and the steps since the last evaluation are kept. So a long training takes little
    memory, and an update takes few requests to S3.
    """

    def __init__(self, run: Run, store: Store = ENVIRONMENT) -> None:
        self._run, self._store = run, store
        self._start()

    def _start(self) -> None:
        self._read: list[FileInfo] = []
        self._found: list[EvaluationRow] = []
        self._intervals = _Intervals()

    def update(self) -> tuple[list[EvaluationRow], list[StepRow]]:
        """Read new parts. Return the rows of all evaluations so far, and the rows of the steps since the last one."""
        parts = self._store.list_files(self._run.metrics_parts)
        count = len(self._read)
        attempts = {_attempt_of(part.uri) for part in parts[max(0, count - 1) :]}
        if parts[:count] != self._read or len(attempts) > 1:
            self._start()
        for row in read_parts(self._run, self._store, [part.uri for part in parts[len(self._read) :]]):
            if (found := self._intervals.add(row)) is not None:
                self._found.append(found)
        self._read = parts
        return list(self._found), list(self._intervals.rows)


def read_curves(run: Run, store: Store = ENVIRONMENT, parts: LiveParts | None = None) -> list[Row]:
    """Return the rows of ``metrics.csv`` if the training is complete, else the rows of the evaluations so far.

    Before the first evaluation, return rows of intervals of steps instead, which have no validation loss.
    """
    written = read_csv(join(run.stats, "metrics.csv"), store)
    if store.exists(join(run.train, MANIFEST)):
        return written
    with reading(run.metrics_parts, "delete it; a new attempt at the step train writes its metrics again"):
        evaluated, steps = (parts or LiveParts(run, store)).update()
        found = [cast("Row", row) for row in evaluated]
        if not found and not written:
            return [cast("Row", row) for row in interval_rows(steps)]
        return written if _last_step(written) >= _last_step(found) else found


def _last_step(rows: Sequence[Row]) -> float:
    step = rows[-1].get("step") if rows else None
    return -1 if (number := as_number(step)) is None else number


def losses_of(rows: Sequence[Row]) -> list[float]:
    """Return the finite values of the validation loss. If no row has it, return those of `batch_loss`."""
    name = "valid_loss" if any("valid_loss" in row for row in rows) else "batch_loss"
    return [loss for row in rows if (loss := as_number(row.get(name))) is not None]


def read_csv(uri: str, store: Store = ENVIRONMENT) -> list[Row]:
    """Return the rows of a CSV file that a step wrote, with numbers as int or float. Return [] if there is no file.

    Raises:
        DamagedError: if the file is not UTF-8, or if a row has more or fewer fields than the header.
    """
    try:
        data = store.read_bytes(uri)
    except FileNotFoundError:
        return []
    with reading(uri, "delete it; the next step writes it again"):
        try:
            header, *body = [row for row in csv.reader(io.StringIO(data.decode())) if row] or [[]]
        except csv.Error as error:
            raise ValueError(error) from error
        return [dict(zip(header, map(_value, row), strict=True)) for row in body]


def _value(cell: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
