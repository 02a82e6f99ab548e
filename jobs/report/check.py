"""What is wrong with a file of training metrics: ``python -m jobs check-metrics FILE``.

It looks for what such files have been seen to have: more fields than the header names, the header again, texts for
numbers, a learning rate that never changes, an accuracy that is always 0, a validation that was trained on, a loss that
knowing how frequent each token is would give as well. Columns are found by their usual names, ours and others'
(``learning_rate``, ``LearningRate``, ``lr``).
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.uri import join

Column = Sequence[float]

SHOWN_LINES = 5
_LEARNING_RATES = ("learningrate", "lr")
_GROWING = ("step", "iteration", "tokens")
_NOT_FALLING = ("epoch", "seconds")
_TRAIN, _VALID = ("train", "training"), ("valid", "validation", "val")
_BASELINES = ("unigramloss", "meanvectorloss")


def findings(text: str, *, constant_rate_is_right: bool = False) -> list[str]:
    """One line for each thing that is wrong with a CSV file of metrics; none if it is as it should be.

    Args:
        text: The file's content.
        constant_rate_is_right: The training's schedule asks for a learning rate that never changes.
    """
    reader = csv.reader(text.splitlines(keepends=True))
    rows = [(reader.line_num, row) for row in reader]
    if not rows:
        return ["line 1: the file is empty, not even a header"]
    (_, header), body = rows[0], rows[1:]
    found = [f"line 1: column '{name}' twice" for name in dict.fromkeys(header) if header.count(name) > 1]
    if not body:
        return [*found, "line 2: no row after the header"]
    found += _grouped(_wrong_cells(header, body))
    columns = _columns(header, body)
    if any(columns.values()):
        found += _wrong_figures(columns, constant_rate_is_right)
    return found


def check_file(uri: str) -> list[str]:
    """The findings of a file; where it lies in a run's folder, the run's configuration tells the schedule.

    Raises:
        InputError: if it cannot be read as text.
    """
    try:
        text = store.read_bytes(uri).decode("utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{uri}: no such file; give the metrics.csv of a run") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: not UTF-8 at byte {error.start}; give a file of comma-separated values") from None
    return findings(text, constant_rate_is_right=_schedule(uri) == "constant")


def _schedule(uri: str) -> str | None:
    """The schedule of the run to which ``<run>/stats/metrics.csv`` belongs; None if there is no such run."""
    folder, _, name = uri.rpartition("/")
    if not folder.endswith("/stats") or not name:
        return None
    try:
        config = store.read_json(join(folder.removesuffix("/stats"), "config.json"))
    except (FileNotFoundError, ValueError):
        return None
    schedule: str | None = config.get("train", {}).get("schedule")
    return schedule


def _wrong_cells(header: Sequence[str], body: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, str]]:
    """The line of each thing that is wrong with a row, and what it is."""
    for line, row in body:
        if row == header:
            yield line, "the header again"
        elif len(row) != len(header):
            yield line, f"{len(row)} fields, the header names {len(header)}"
        else:
            for name, cell in zip(header, row, strict=True):
                if not cell.strip():
                    yield line, f"'{name}' is missing"
                elif not math.isfinite(_number(cell)):
                    yield line, f"'{name}' is no finite number"


def _grouped(found: Iterable[tuple[int, str]]) -> list[str]:
    """The same thing on several lines as one finding."""
    lines: dict[str, list[int]] = {}
    for line, what in found:
        lines.setdefault(what, []).append(line)
    return [f"line{'s' * (len(at) > 1)} {_shown(at)}: {what}" for what, at in lines.items()]


def _shown(lines: Sequence[int]) -> str:
    more = f" and {len(lines) - SHOWN_LINES} more" if len(lines) > SHOWN_LINES else ""
    return ", ".join(map(str, lines[:SHOWN_LINES])) + more


def _columns(header: Sequence[str], body: Iterable[tuple[int, list[str]]]) -> dict[str, Column]:
    """The numbers of each column, of the rows that are whole. Names are the file's own."""
    whole = [row for _, row in body if len(row) == len(header) and row != header]
    columns = {name: [_number(row[place]) for row in whole] for place, name in enumerate(header)}
    return {name: column for name, column in columns.items() if all(map(math.isfinite, column))}


def _wrong_figures(columns: Mapping[str, Column], constant_rate_is_right: bool) -> Iterator[str]:
    """What is wrong with whole columns."""
    usual = {re.sub(r"[^a-z]", "", name.lower()): name for name in columns}
    for key, name in usual.items():
        column = columns[name]
        if key in _LEARNING_RATES and not constant_rate_is_right and _is_constant(column):
            yield f"'{name}' is {column[0]:g} in all {len(column)} rows: the learning rate was not read as it changed"
        if "accuracy" in key and not any(column):
            yield f"'{name}' is 0 in all {len(column)} rows: predictions are compared with something they cannot equal"
        if "loss" in key and key not in (*_BASELINES, "bigramloss") and _is_constant(column):
            yield f"'{name}' is {column[0]:g} in all {len(column)} rows: nothing was learnt"
        if key in _GROWING + _NOT_FALLING:
            yield from _disorder(name, column, strictly=key in _GROWING)
    for what in ("loss", "accuracy"):
        yield from _trained_on(columns, _first(usual, _TRAIN, what), _first(usual, _VALID, what))
    yield from _no_better(columns, _first(usual, _VALID, "loss"), [usual[key] for key in _BASELINES if key in usual])


def _is_constant(column: Column) -> bool:
    return len(column) > 1 and len(set(column)) == 1


def _disorder(name: str, column: Column, *, strictly: bool) -> Iterator[str]:
    """The first place where what only grows does not."""
    for row, (before, after) in enumerate(pairwise(column), 2):
        if after < before or (strictly and after == before):
            yield f"'{name}' is {after:g} in row {row}, after {before:g}: rows are out of order, or of two runs"
            return


def _trained_on(columns: Mapping[str, Column], train: str | None, valid: str | None) -> Iterator[str]:
    if train and valid and len(columns[train]) > 1 and columns[train] == columns[valid] and any(columns[train]):
        yield f"'{valid}' equals '{train}' in all {len(columns[train])} rows: validation is what was trained on"


def _no_better(columns: Mapping[str, Column], valid: str | None, baselines: Iterable[str]) -> Iterator[str]:
    for baseline in baselines:
        if valid and all(loss >= known for loss, known in zip(columns[valid], columns[baseline], strict=True)):
            yield (
                f"'{valid}' is never below '{baseline}' ({columns[baseline][-1]:g}): at best {min(columns[valid]):g},"
                " which frequencies alone give"
            )


def _first(usual: Mapping[str, str], sides: Iterable[str], what: str) -> str | None:
    return next((usual[side + what] for side in sides if side + what in usual), None)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
