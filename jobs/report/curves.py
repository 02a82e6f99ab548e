"""The curves of a training as a table: one row for each validation, means and extremes over the steps before it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Row = dict[str, Any]
EVALUATED = (
    *("train_loss", "valid_loss", "unigram_loss", "bigram_loss", "mean_vector_loss"),
    *("train_accuracy", "valid_accuracy", "unigram_accuracy", "perplexity", "bits_per_byte"),
)
"""What an evaluation and the baselines tell; a kind of model has its own of these, the same in all its rows."""


def evaluations(rows: Iterable[Row]) -> Iterator[Row]:
    """One row for each step that was validated, of the metrics of all steps (see `jobs.training.metrics`).

    Losses are nats per token (squared errors where the model regresses), those of train and valid at that moment;
    `seconds` are those of training so far; `batch_loss` and the rest is over the steps since the row before.
    """
    interval: list[Row] = []
    for row in rows:
        interval.append(row)
        if "valid_loss" in row:
            yield _evaluation(interval)
            interval = []


def nearest_rank(ascending: Sequence[float], share: float) -> float:
    """The smallest of the values that so great a share of all does not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def _evaluation(interval: list[Row]) -> Row:
    last = interval[-1]
    norms = [row["gradient_norm"] for row in interval]
    milliseconds = sum(row["step_milliseconds"] for row in interval)
    tokens = sum(row["tokens_per_second"] * row["step_milliseconds"] for row in interval)
    fastest = sorted(row["step_milliseconds"] for row in interval)
    return {
        "step": last["step"],
        "epoch": last["epoch"],
        "tokens": last["tokens"],
        "batch_loss": statistics.fmean(row["loss"] for row in interval),
        **{name: last[name] for name in EVALUATED if name in last},
        "learning_rate": last["learning_rate"],
        "gradient_norm_mean": statistics.fmean(norms),
        "gradient_norm_max": max(norms),
        "seconds": last["seconds"],
        "tokens_per_second": tokens / milliseconds,
        "step_milliseconds_p50": nearest_rank(fastest, 0.5),
        "step_milliseconds_p95": nearest_rank(fastest, 0.95),
        "sync_milliseconds": statistics.fmean(row["sync_milliseconds"] for row in interval),
        "sync_bytes": sum(row["sync_bytes"] for row in interval),
        "peak_resident_bytes": max(row["resident_bytes"] for row in interval),
        "peak_gpu_bytes": max(row["gpu_bytes"] for row in interval),
        "cpu_load": statistics.fmean(row["cpu_load"] for row in interval),
    }
