"""Statistics of a run as files: ``stats.json``, ``stats.txt``, ``metrics.csv``, ``spark.csv`` and ``executors.csv``.

Each step leaves ``stats/<step>.json``. After every step, also one that failed, the merged files are made anew from
all that is there, so a broken night still has figures up to where it broke.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.lake import store
from jobs.lake.layout import STEPS, Run
from jobs.lake.uri import join
from jobs.report.curves import evaluations
from jobs.report.table import readable, to_csv, to_lines
from jobs.training.metrics import read_parts

SUMMARY = (
    ("train", "train_loss"),
    ("train", "valid_loss"),
    ("train", "unigram_loss"),
    ("train", "bigram_loss"),
    ("train", "mean_vector_loss"),
    ("train", "unigram_accuracy"),
    ("train", "bits_per_byte"),
    ("train", "perplexity"),
    ("train", "valid_accuracy"),
    ("train", "tokens_per_second"),
    ("train", "num_parameters"),
    ("windows", "num_train_windows"),
    ("windows", "num_valid_windows"),
)
TABLES = {
    "evaluations": (
        "metrics.csv",
        (
            *("step", "epoch", "train_loss", "valid_loss", "train_accuracy", "valid_accuracy", "learning_rate"),
            *("gradient_norm_mean", "gradient_norm_max", "tokens_per_second", "seconds", "cpu_load"),
        ),
    ),
    "stages": (
        "spark.csv",
        (
            *("step", "stage", "epoch", "tasks", "failed_tasks", "seconds", "task_seconds_mean", "task_seconds_max"),
            *("gc_seconds", "shuffle_read_bytes", "shuffle_write_bytes", "disk_spilled_bytes", "description"),
        ),
    ),
    "executors": (
        "executors.csv",
        (
            *("step", "executor", "cores", "tasks", "failed_tasks", "task_seconds", "gc_seconds"),
            *("cached_memory_bytes", "cached_disk_bytes", "address"),
        ),
    ),
}
"""What steps leave as tables: the file of each, and the columns that are shown for reading."""


def write_step(run: Run, step: str, stats: Mapping[str, Any]) -> None:
    """Write the statistics of one step, and what its metrics make, then the merged files."""
    curves = {"evaluations": _write_curves(run, stats["started"])} if step == "train" else {}
    store.write_json(run.step_stats(step), {**stats, **curves})
    _write_merged(run)


def _write_curves(run: Run, started: float) -> list[dict[str, Any]]:
    """Write what TensorBoard reads; return the rows of ``metrics.csv``."""
    from jobs.report.tensorboard import NAME, event_file  # noqa: PLC0415 - its library takes seconds to import

    rows = read_parts(run)
    if rows:
        store.write_bytes(join(run.tensorboard, NAME), event_file(rows, started))
    return list(evaluations(rows))


def _write_merged(run: Run) -> None:
    """Make the merged files from what the steps have left so far."""
    steps = read_steps(run)
    merged = merge(steps)
    store.write_json(join(run.stats, "stats.json"), merged)
    tables = {kind: rows_of(steps, kind) for kind in TABLES}
    for kind, (name, _) in TABLES.items():
        store.write_bytes(join(run.stats, name), to_csv(tables[kind]))
    store.write_bytes(join(run.stats, "stats.txt"), to_text(run.run_id, merged, tables).encode())


def read_steps(run: Run) -> dict[str, dict[str, Any]]:
    """The statistics of the steps that have left some, in the steps' order."""
    found = {}
    for step in STEPS:
        try:
            found[step] = store.read_json(run.step_stats(step))
        except FileNotFoundError:
            continue
    return found


def merge(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One flat summary, the seconds of each step, and all figures by step (without tables)."""
    summary = {key: steps[step][key] for step, key in SUMMARY if key in steps.get(step, {})}
    plain = {step: {key: value for key, value in stats.items() if key not in TABLES} for step, stats in steps.items()}
    return {**summary, "seconds": {step: stats.get("seconds") for step, stats in plain.items()}, "steps": plain}


def rows_of(steps: Mapping[str, Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The rows of one table, of all steps; only training is evaluated, so these need not say which step they are of."""
    named = kind != "evaluations"
    return [{"step": step} | row if named else row for step, stats in steps.items() for row in stats.get(kind, [])]


def to_text(run_id: str, merged: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The merged statistics for reading: the summary, one block for each step, then the tables."""
    lines = [f"Run {run_id}", ""]
    lines += _block({key: value for key, value in merged.items() if key not in ("seconds", "steps")})
    for step, stats in merged["steps"].items():
        lines += ["", step, *_block(stats)]
    for kind, rows in tables.items():
        if rows:
            name, columns = TABLES[kind]
            lines += ["", f"{kind} (all columns in {name})", *to_lines(rows, columns)]
    return "\n".join(lines) + "\n"


def _block(stats: Mapping[str, Any]) -> Iterable[str]:
    return (f"  {key.replace('_', ' '):<34}{' '.join(readable(value).split())}" for key, value in stats.items())
