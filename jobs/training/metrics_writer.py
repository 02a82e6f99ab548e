"""The metrics of a training: one row for each step, written while training runs, and summarized at its end.

The rows of a few seconds are written together to one file, a part. `jobs.results.rows` reads the parts. The metrics are
defined in `jobs.metrics.columns`.
"""

from __future__ import annotations

import logging
import statistics
import time
import uuid
from typing import Any, cast

from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import base_name, join
from jobs.metrics import chosen
from jobs.metrics.columns import (
    BASELINE_LOSSES,
    QUALITY,
    BatchRow,
    Position,
    Quality,
    StepRow,
    baselines_text,
)
from jobs.metrics.stats import TrainStats
from jobs.results.rows import read_parts
from jobs.training.schedule import Schedule

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
PROGRESS_SECONDS = 2.0
LAST_STEPS = 50


class MetricsWriter:
    """Writes the steps of an attempt to the metrics, to the log, and every 2 s to ``<run>/progress/train.json``."""

    def __init__(self, run: Run, schedule: Schedule) -> None:
        self._run = run
        self._schedule = schedule
        attempts = [int(base_name(info.uri).split("-")[1]) for info in store.list_files(run.metrics_parts)]
        self._prefix = f"part-{max(attempts, default=-1) + 1:04d}-{uuid.uuid4().hex[:8]}"
        self._number = 0
        self._rows: list[StepRow] = []
        self._flushed = time.monotonic()
        self._reported = 0.0

    def add(self, position: Position, quality: Quality, batch: BatchRow) -> None:
        """Report a step from its own metrics `batch` and the `position` of training after it.

        `quality` has the baselines and, if the model was validated after this step, the validation metrics.
        """
        row = cast("StepRow", {**position, **quality, **batch})
        self._rows.append(row)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()
        if "valid_loss" in row:
            log.info("step %d: loss %.3f, validation loss %.3f (%s)",
                     row["step"], row["loss"], row["valid_loss"], baselines_text(row))  # fmt: skip
        if time.monotonic() - self._reported >= PROGRESS_SECONDS:
            store.write_json(self._run.progress("train"), self.progress(row))
            self._reported = time.monotonic()

    def flush(self) -> None:
        """Write the collected rows as a part. Call this before a checkpoint, so that the lake has the rows up to it."""
        if self._rows:
            name = f"{self._prefix}-{self._number:06d}.jsonl"
            store.write_bytes(join(self._run.metrics_parts, name), to_jsonl(self._rows))
            self._number += 1
            self._rows.clear()
        self._flushed = time.monotonic()

    def progress(self, row: StepRow) -> dict[str, Any]:
        """Return the progress after the step of `row`, as a message and as numbers."""
        share = self._schedule.progress(row["step"], row["seconds"])
        seconds_left = row["seconds"] * (1 - share) / share
        minutes, seconds = divmod(round(seconds_left), 60)
        message = (
            f"step {row['step']}/{self._schedule.total_steps}  loss {row['loss']:.2f} ({baselines_text(row)})"
            f"  {row['tokens_per_second']:,.0f} tokens/s  {minutes}:{seconds:02d} left"
        )
        shown = chosen(row, ("step", "loss", "tokens_per_second", *BASELINE_LOSSES))
        left = {"total_steps": self._schedule.total_steps, "seconds_left": seconds_left}
        return {"message": message, **shown, **left, "time": time.time()}


def compact(run: Run) -> list[StepRow]:
    """Write the rows of all parts to ``metrics.jsonl``. Return them in the order of steps, one row for each step."""
    rows = read_parts(run)
    store.write_bytes(run.metrics, to_jsonl(rows))
    return rows


def summarize(rows: list[StepRow], *, keep_best: bool) -> TrainStats:
    """Return the statistics of a training from the metrics of all its steps.

    The losses and accuracies are those of the last step. With `keep_best`, they are those of the best validation.
    """
    last = rows[-1]
    validated = [row for row in rows if "valid_loss" in row]
    published = min(validated, key=lambda row: row["valid_loss"]) if keep_best else last
    quality = cast("TrainStats", chosen(published, QUALITY))
    seconds = last["seconds"]
    gradient_norms = [row["gradient_norm"] for row in rows]
    return {
        "reused": False,
        **quality,
        "batch_loss": statistics.fmean(row["loss"] for row in rows[-LAST_STEPS:]),
        "tokens_per_second": last["tokens"] / seconds,
        "num_steps": last["step"],
        "num_tokens": last["tokens"],
        "epochs": last["epoch"],
        "learning_rate": last["learning_rate"],
        "gradient_norm_mean": statistics.fmean(gradient_norms),
        "gradient_norm_max": max(gradient_norms),
        "seconds_per_step": seconds / last["step"],
        "seconds_per_epoch": seconds / last["epoch"],
        "training_seconds": seconds,
        "sync_share": sum(row["sync_milliseconds"] for row in rows) / sum(row["step_milliseconds"] for row in rows),
        "sync_bytes": sum(row["sync_bytes"] for row in rows),
        "optimizer_bytes": sum(row.get("state_bytes", 0) for row in rows),
        "states_lost": sum(row.get("states_lost", 0) for row in rows),
        "cpu_load": statistics.fmean(row["cpu_load"] for row in rows),
    }
