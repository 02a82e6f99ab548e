"""The checker of a file of training metrics: ``python -m jobs check-metrics FILE``.

It reports defects that have occurred in such files. Columns are found by the names that Nightjar and other programs
use: ``learning_rate``, ``LearningRate``, ``lr``.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.retry import one_line
from jobs.lake.uri import join
from jobs.metrics import Metric, Order, metrics_of
from jobs.metrics.columns import EvaluationRow

Column = Sequence[float]

_TRAIN, _VALID = ("train", "training"), ("valid", "validation", "val")


def find_defects(text: str, *, has_constant_rate: bool = False) -> list[str]:
    """Return one line for each defect of a CSV file of metrics.

    With `has_constant_rate`, a constant learning rate is not a defect.
    """
    reader, rows = csv.reader(text.splitlines(keepends=True)), list[tuple[int, list[str]]]()
    try:
        rows.extend((reader.line_num, row) for row in reader)
    except csv.Error as error:
        begins = rows[-1][0] + 1 if rows else 1
        return [f"line {begins}: not CSV ({error}); look for a quote that is not closed"]
    if not rows:
        return ["line 1: the file is empty; it has no header"]
    (_, header), body = rows[0], rows[1:]
    found = [
        f"line 1: column '{name}' occurs more than once" for name in dict.fromkeys(header) if header.count(name) > 1
    ]
    if not body:
        return [*found, "line 2: no row after the header"]
    found += _grouped(_wrong_cells(header, body))
    columns = _columns(header, body)
    if any(columns.values()):
        found += _wrong_columns(columns, has_constant_rate)
    return found


def check_file(uri: str) -> list[str]:
    """Return the defects of a file of metrics.

    If a run wrote the file, the run's configuration says whether a constant learning rate is a defect.

    Raises:
        InputError: if there is no such file, or it is not UTF-8 text.
    """
    try:
        text = store.read_bytes(uri).decode("utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{uri}: no such file; give the metrics.csv of a run") from None
    except OSError as error:
        raise InputError(f"{uri}: cannot be read ({one_line(error)}); give the metrics.csv of a run") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: not UTF-8 at byte {error.start}; give a file of comma-separated values") from None
    return find_defects(text, has_constant_rate=_schedule(uri) == "constant")


def _schedule(uri: str) -> str | None:
    """Return the learning-rate schedule of the run that wrote ``<run>/stats/metrics.csv`` at `uri`.

    Return None if no run wrote it.
    """
    folder, _, name = uri.rpartition("/")
    schedule: str | None = None
    if folder.endswith("/stats") and name:
        with suppress(FileNotFoundError, ValueError):
            config = store.read_json(join(folder.removesuffix("/stats"), "config.json"))
            schedule = config.get("train", {}).get("schedule")
    return schedule


def _wrong_cells(header: Sequence[str], body: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, str]]:
    """Yield the line number and the description of each defect in the rows of a file."""
    for line, row in body:
        if row == header:
            yield line, "the header is repeated"
        elif len(row) != len(header):
            yield line, f"{len(row)} fields, but the header has {len(header)}"
        else:
            for name, cell in zip(header, row, strict=True):
                if not cell.strip():
                    yield line, f"'{name}' is missing"
                elif not math.isfinite(_number(cell)):
                    yield line, f"'{name}' is not a finite number"


def _grouped(found: Iterable[tuple[int, str]]) -> list[str]:
    """Return one message for each kind of defect, with the numbers of all lines of the file that have it."""
    lines: dict[str, list[int]] = {}
    for line, defect in found:
        lines.setdefault(defect, []).append(line)
    return [f"line{'s' * (len(at) > 1)} {_listed(at)}: {defect}" for defect, at in lines.items()]


def _listed(lines: Sequence[int]) -> str:
    """Return a text with the first five line numbers and the count of the others."""
    return ", ".join(map(str, lines[:5])) + (f" and {len(lines) - 5} more" if len(lines) > 5 else "")


def _columns(header: Sequence[str], body: Iterable[tuple[int, list[str]]]) -> dict[str, Column]:
    """Return the columns that have only finite numbers, by name. Rows with a wrong number of fields are left out."""
    whole = [row for _, row in body if len(row) == len(header) and row != header]
    columns = {name: [_number(row[place]) for row in whole] for place, name in enumerate(header)}
    return {name: column for name, column in columns.items() if all(map(math.isfinite, column))}


def _wrong_columns(columns: Mapping[str, Column], has_constant_rate: bool) -> Iterator[str]:
    """Yield a line for each defect of a whole column."""
    metrics = _known_metrics()
    usual = {_letters(name): name for name in columns}
    for key, name in usual.items():
        column, metric = columns[name], metrics.get(key, Metric("", ""))
        if key in ("learningrate", "lr") and not has_constant_rate and _is_constant(column):
            yield f"'{name}' is {column[0]:g} in all {len(column)} rows: the rate of later steps was not recorded"
        if "accuracy" in key and not any(column):
            yield f"'{name}' is 0 in all {len(column)} rows: predictions are compared with something they cannot equal"
        if "loss" in key and not metric.baseline and _is_constant(column):
            yield f"'{name}' is {column[0]:g} in all {len(column)} rows: the model learned nothing"
        if metric.order is not Order.ANY:
            yield from _disorder(name, column, strictly=metric.order is Order.INCREASING)
    for quantity in ("loss", "accuracy"):
        yield from _same_data(columns, _first(usual, _TRAIN, quantity), _first(usual, _VALID, quantity))
    baselines = [name for key, name in usual.items() if key in metrics and metrics[key].must_beat]
    yield from _no_better(columns, _first(usual, _VALID, "loss"), baselines)


def _known_metrics() -> dict[str, Metric]:
    """Return a dict from the letters of a metric's name to the metric. `step` is also listed as "iteration"."""
    metrics = {_letters(name): metric for name, metric in metrics_of(EvaluationRow).items()}
    return metrics | {"iteration": metrics["step"]}


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _is_constant(column: Column) -> bool:
    return len(column) > 1 and len(set(column)) == 1


def _disorder(name: str, column: Column, *, strictly: bool) -> Iterator[str]:
    """Yield a message for the first row where a column decreases or, if `strictly`, does not increase."""
    for row, (before, after) in enumerate(pairwise(column), 2):
        if after < before or (strictly and after == before):
            yield f"'{name}' is {after:g} in row {row}, after {before:g}: rows are out of order, or from two runs"
            return


def _same_data(columns: Mapping[str, Column], train: str | None, valid: str | None) -> Iterator[str]:
    if train and valid and len(columns[train]) > 1 and columns[train] == columns[valid] and any(columns[train]):
        yield f"'{valid}' equals '{train}' in all {len(columns[train])} rows: the model is validated on training data"


def _no_better(columns: Mapping[str, Column], valid: str | None, baselines: Iterable[str]) -> Iterator[str]:
    for baseline in baselines:
        if valid and all(loss >= known for loss, known in zip(columns[valid], columns[baseline], strict=True)):
            yield (
                f"'{valid}' is never below '{baseline}' ({columns[baseline][-1]:g}): its best is"
                f" {min(columns[valid]):g}, and token frequencies alone are as good"
            )


def _first(usual: Mapping[str, str], sides: Iterable[str], quantity: str) -> str | None:
    """Return the name of the column for the `quantity` of a side. Return None if there is no such column.

    `usual` is a dict from the letters of the columns' names to these names. `sides` are the usual names of the side.
    """
    return next((usual[side + quantity] for side in sides if side + quantity in usual), None)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
