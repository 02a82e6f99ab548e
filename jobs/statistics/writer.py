"""The statistics of a run as files: ``stats.json``, ``stats.txt``, the CSV files, ``report.html`` and pictures.

Each step writes ``stats/<step>.json``. The merged files are rewritten after every step, including failed steps. So a
run that failed still has the statistics of the steps before the failure.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from jobs.config import STEPS
from jobs.errors import reading
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.uri import join
from jobs.metrics import Show, names
from jobs.metrics.columns import EvaluationRow
from jobs.metrics.stats import SUMMARY_METRICS, ExecutorRow, StageRow
from jobs.results.pictures import write_pictures
from jobs.results.report import read_report, to_html
from jobs.results.rows import evaluation_rows, read_parts
from jobs.results.text import readable


class Table(NamedTuple):
    """A table among the statistics of a step."""

    file: str
    """The name of the CSV file, which has the table's rows from all pipeline steps."""
    row: type
    names_step: bool
    """Whether a row of the CSV file begins with the name of its step."""


TABLES = {
    "evaluations": Table("metrics.csv", EvaluationRow, names_step=False),
    "stages": Table("spark.csv", StageRow, names_step=True),
    "executors": Table("executors.csv", ExecutorRow, names_step=True),
}
"""A dict from the key of each table in ``stats/<step>.json`` to the table."""


def write_step(run: Run, step: str, stats: Mapping[str, Any]) -> None:
    """Write the statistics of one step and the curves of training, then the merged files."""
    curves = {"evaluations": _write_curves(run, stats["started"])} if step == "train" else {}
    store.write_json(run.step_stats(step), {**stats, **curves})
    with reading(run.stats, "delete it; later steps write their statistics again"):
        steps = read_steps(run)
        merged = merge(steps)
        rows = {kind: rows_of(steps, kind) for kind in TABLES}
        files = {table.file: to_csv(rows[kind]) for kind, table in TABLES.items()}
        files["stats.txt"] = to_text(run.run_id, merged, rows).encode()
    store.write_json(join(run.stats, "stats.json"), merged)
    for name, data in files.items():
        store.write_bytes(join(run.stats, name), data)
    report = read_report(run, is_over=True)  # the lock belongs to this step, which is over
    store.write_bytes(run.report, to_html(report))
    if step == report.summary.steps[-1].name:
        write_pictures(report, run.stats)


def _write_curves(run: Run, started: float) -> list[EvaluationRow]:
    """Write the event file for TensorBoard; return the rows of ``metrics.csv``."""
    from jobs.statistics.tensorboard import NAME, event_file  # noqa: PLC0415 - its library takes seconds to import

    rows = read_parts(run)
    if rows:
        store.write_bytes(join(run.tensorboard, NAME), event_file(rows, started))
    return list(evaluation_rows(rows))


def read_steps(run: Run) -> dict[str, dict[str, Any]]:
    """Return the statistics of each step that has written some, in the order of the steps."""
    found = {}
    for step in STEPS:
        with suppress(FileNotFoundError):
            found[step] = store.read_json(run.step_stats(step))
    return found


def merge(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summary, the duration of each step in seconds, and the statistics of each step without its tables."""
    summary = {name: steps[step][name] for step, name in SUMMARY_METRICS if name in steps.get(step, {})}
    plain = {step: {key: value for key, value in stats.items() if key not in TABLES} for step, stats in steps.items()}
    return {**summary, "seconds": {step: stats.get("seconds") for step, stats in plain.items()}, "steps": plain}


def rows_of(steps: Mapping[str, Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the rows of the table `kind` from all pipeline steps.

    If the table has `names_step`, each row begins with the name of its step.
    """
    names_step = TABLES[kind].names_step
    return [{"step": step} | row if names_step else row for step, stats in steps.items() for row in stats.get(kind, [])]


def to_text(run_id: str, merged: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the text of ``stats.txt``: the summary, one block for each step, then the tables."""
    lines = [f"Run {run_id}", ""]
    lines += _block({key: value for key, value in merged.items() if key not in ("seconds", "steps")})
    for step, stats in merged["steps"].items():
        lines += ["", step, *_block(stats)]
    for kind, rows in tables.items():
        if rows:
            table = TABLES[kind]
            columns = (*["step"] * table.names_step, *names(table.row, Show.TABLE))
            lines += ["", f"{kind} (all columns in {table.file})", *to_lines(rows, columns)]
    return "\n".join(lines) + "\n"


def _block(stats: Mapping[str, Any]) -> Iterable[str]:
    return (f"  {key.replace('_', ' '):<34}{' '.join(readable(value).split())}" for key, value in stats.items())


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a CSV file of rows with equal columns. Values other than numbers are quoted (RFC 4180, line feeds)."""
    columns = list(rows[0]) if rows else []
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def to_lines(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> list[str]:
    """Return the lines of a text table with right-aligned columns. Columns that the rows do not have are left out."""
    shown = [column for column in columns if rows and column in rows[0]]
    cells = [[column.replace("_", " ") for column in shown]]
    cells += [[readable(row[column]).splitlines()[0] for column in shown] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return [f"  {line}" for line in lines] if rows else []
