"""The curves of a training as a table: one row for each validation, means and extremes over the steps before it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

Row = dict[str, Any]


def evaluations(rows: Iterable[Row]) -> Iterator[Row]:
    """One row for each step that was validated, of the metrics of all steps (see `jobs.training.metrics`).

    Losses are nats per token, `seconds` those of training so far, the rest is over the steps since the row before.
    """
    interval: list[Row] = []
    for row in rows:
        interval.append(row)
        if "valid_loss" in row:
            yield _evaluation(interval)
            interval = []


def _evaluation(interval: list[Row]) -> Row:
    last = interval[-1]
    norms = [row["gradient_norm"] for row in interval]
    milliseconds = sum(row["step_milliseconds"] for row in interval)
    tokens = sum(row["tokens_per_second"] * row["step_milliseconds"] for row in interval)
    return {
        "step": last["step"],
        "epoch": last["epoch"],
        "tokens": last["tokens"],
        "train_loss": statistics.fmean(row["loss"] for row in interval),
        "valid_loss": last["valid_loss"],
        "unigram_loss": last["unigram_loss"],
        "valid_accuracy": last["valid_accuracy"],
        "perplexity": last["perplexity"],
        "bits_per_byte": last["bits_per_byte"],
        "learning_rate": last["learning_rate"],
        "gradient_norm_mean": statistics.fmean(norms),
        "gradient_norm_max": max(norms),
        "seconds": last["seconds"],
        "tokens_per_second": tokens / milliseconds,
        "peak_resident_bytes": max(row["resident_bytes"] for row in interval),
        "cpu_load": statistics.fmean(row["cpu_load"] for row in interval),
    }
