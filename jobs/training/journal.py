"""What a training run tells while it runs: metrics in the lake, and one small object that says how far it is."""

from __future__ import annotations

import logging
import time

from jobs.lake import store
from jobs.lake.layout import Run
from jobs.metrics.training import BASELINE_LOSSES, baselines_text
from jobs.training.metrics import MetricsWriter, Row
from jobs.training.schedule import Schedule

PROGRESS_SECONDS = 2.0

log = logging.getLogger(__name__)


class Journal:
    """Writes rows of metrics, and the progress of ``<run>/progress/train.json`` every two seconds."""

    def __init__(self, run: Run, schedule: Schedule) -> None:
        self._run = run
        self._schedule = schedule
        self._metrics = MetricsWriter(run)
        self._told = 0.0

    def add(self, row: Row) -> None:
        """Take the row of a step."""
        self._metrics.add(row)
        if "valid_loss" in row:
            log.info("step %d: loss %.3f, validation loss %.3f (%s)",
                     row["step"], row["loss"], row["valid_loss"], baselines_text(row))  # fmt: skip
        if time.monotonic() - self._told >= PROGRESS_SECONDS:
            store.write_json(self._run.progress("train"), self.progress(row))
            self._told = time.monotonic()

    def flush(self) -> None:
        """Write what was collected."""
        self._metrics.flush()

    def progress(self, row: Row) -> Row:
        """How far training is after the step of `row`, for reading and as numbers."""
        share = self._schedule.progress(row["step"], row["seconds"])
        seconds_left = row["seconds"] * (1 - share) / share
        minutes, seconds = divmod(round(seconds_left), 60)
        message = (
            f"step {row['step']}/{self._schedule.total_steps}  loss {row['loss']:.2f} ({baselines_text(row)})"
            f"  {row['tokens_per_second']:,.0f} tokens/s  {minutes}:{seconds:02d} left"
        )
        shown = {key: row[key] for key in ("step", "loss", "tokens_per_second", *BASELINE_LOSSES) if key in row}
        return {"message": message, **shown, "total_steps": self._schedule.total_steps, "seconds_left": seconds_left}
