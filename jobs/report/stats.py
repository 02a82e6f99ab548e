"""Statistics of a run as files: ``stats.json``, ``metrics.csv``, ``spark.csv`` and ``stats.txt``.

Each step leaves ``stats/<step>.json``. After every step, also one that failed, the merged files are made anew from
all that is there, so a broken night still has figures up to where it broke.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs import lake
from jobs.paths import STEPS, Run, join
from jobs.report.curves import evaluations
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


def write_step(run: Run, step: str, stats: Mapping[str, Any]) -> None:
    """Write the statistics of one step, then the merged files."""
    lake.write_json(run.step_stats(step), dict(stats))
    write_merged(run)


def write_merged(run: Run) -> None:
    """Make the merged files from what the steps have left so far."""
    steps = read_steps(run)
    merged = merge(steps)
    lake.write_json(join(run.stats, "stats.json"), merged)
    stages = [{"step": step, **row} for step, stats in steps.items() for row in stats.get("stages", [])]
    lake.write_bytes(join(run.stats, "spark.csv"), to_csv(stages))
    lake.write_bytes(join(run.stats, "metrics.csv"), to_csv(list(evaluations(read_parts(run)))))
    lake.write_bytes(join(run.stats, "stats.txt"), to_text(run.run_id, merged).encode())


def read_steps(run: Run) -> dict[str, dict[str, Any]]:
    """The statistics of the steps that have left some, in the steps' order."""
    found = {}
    for step in STEPS:
        try:
            found[step] = lake.read_json(run.step_stats(step))
        except FileNotFoundError:
            continue
    return found


def merge(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One flat summary, the seconds of each step, and all figures by step (without Spark's rows)."""
    summary = {key: steps[step][key] for step, key in SUMMARY if key in steps.get(step, {})}
    plain = {step: {key: value for key, value in stats.items() if key != "stages"} for step, stats in steps.items()}
    return {**summary, "seconds": {step: stats.get("seconds") for step, stats in plain.items()}, "steps": plain}


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """`rows` under one header, of equal columns, quoted where needed (RFC 4180, line feeds)."""
    columns = list(rows[0]) if rows else []
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def to_text(run_id: str, merged: Mapping[str, Any]) -> str:
    """The merged statistics for reading: the summary, then one block for each step."""
    lines = [f"Run {run_id}", ""]
    lines += _block({key: value for key, value in merged.items() if key not in ("seconds", "steps")})
    for step, stats in merged["steps"].items():
        lines += ["", step, *_block(stats)]
    return "\n".join(lines) + "\n"


def _block(stats: Mapping[str, Any]) -> Iterable[str]:
    return (f"  {key.replace('_', ' '):<28}{_readable(value)}" for key, value in stats.items())


def _readable(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
