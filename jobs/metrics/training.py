"""The metrics of training: a row for each optimizer step, and the rows of ``metrics.csv``.

To add a column to ``metrics.csv``, add a field to `EvaluationRow`.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, TypedDict

from jobs.metrics.schema import Metric, Order, Show, Steps, metrics_of

HEADLINE = Show.SUMMARY | Show.CARD
LOSS_UNIT = "nats per token; squared distance where the model predicts embeddings"


def mean(name: str) -> Callable[[Steps], float]:
    """Return a function that computes the mean of a metric over steps."""
    return lambda rows: statistics.fmean(row[name] for row in rows)


def maximum(name: str) -> Callable[[Steps], float]:
    """Return a function that finds the largest value of a metric over steps."""
    return lambda rows: max(row[name] for row in rows)


def total(name: str) -> Callable[[Steps], float]:
    """Return a function that sums a metric over steps."""
    return lambda rows: sum(row[name] for row in rows)


def percentile(name: str, share: float) -> Callable[[Steps], float]:
    """Return a function that finds the nearest-rank percentile of a metric over steps."""
    return lambda rows: nearest_rank(sorted(row[name] for row in rows), share)


def nearest_rank(ascending: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: the smallest value that is not below `share` (0 to 1) of all values."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def tokens_per_second(rows: Steps) -> float:
    """Return the speed over several steps."""
    tokens: float = sum(row["tokens_per_second"] * row["step_milliseconds"] for row in rows)
    milliseconds: float = sum(row["step_milliseconds"] for row in rows)
    return tokens / milliseconds


class Position(TypedDict):
    """How far training has come."""

    step: Annotated[int, Metric("steps", "Optimizer steps so far.", Show.TABLE, order=Order.INCREASING)]
    epoch: Annotated[
        float,
        Metric("epochs", "Epochs so far.", Show.TABLE, chart="training", order=Order.NOT_DECREASING),
    ]
    tokens: Annotated[int, Metric("tokens", "Tokens so far.", chart="training", order=Order.INCREASING)]


class Quality(TypedDict, total=False):
    """Losses and accuracies of the model, and the baselines to compare them with; which ones depends on its kind."""

    train_loss: Annotated[
        float, Metric(LOSS_UNIT, "Mean loss on evenly spaced training windows.", HEADLINE | Show.TABLE, chart="loss")
    ]
    valid_loss: Annotated[
        float, Metric(LOSS_UNIT, "Mean loss on evenly spaced validation windows.", HEADLINE | Show.TABLE, chart="loss")
    ]
    unigram_loss: Annotated[
        float,
        Metric(
            "nats per token",
            "Validation loss of a baseline that predicts each token by its frequency.",
            HEADLINE,
            baseline="unigram",
            must_beat=True,
            chart="loss",
        ),
    ]
    bigram_loss: Annotated[
        float,
        Metric(
            "nats per token",
            "Validation loss of a baseline that predicts each token from the one before it.",
            HEADLINE,
            baseline="bigram",
            chart="loss",
        ),
    ]
    mean_vector_loss: Annotated[
        float,
        Metric(
            "squared distance",
            "Validation loss of a baseline that always predicts the mean embedding.",
            HEADLINE,
            baseline="mean vector",
            must_beat=True,
            chart="loss",
        ),
    ]
    train_accuracy: Annotated[
        float, Metric("share", "Training targets that the model ranks first.", Show.TABLE, chart="accuracy")
    ]
    valid_accuracy: Annotated[
        float,
        Metric("share", "Validation targets that the model ranks first.", HEADLINE | Show.TABLE, chart="accuracy"),
    ]
    unigram_accuracy: Annotated[
        float,
        Metric("share", "Validation targets that are the most frequent training token.", HEADLINE, chart="accuracy"),
    ]
    perplexity: Annotated[float, Metric("", "Exponential of the validation loss.", HEADLINE, chart="loss")]
    bits_per_byte: Annotated[
        float,
        Metric(
            "bits per byte",
            "Validation loss per byte of text; comparable between vocabularies that keep the whole text.",
            HEADLINE,
            chart="loss",
        ),
    ]


class StepCost(TypedDict):
    """Time, communication and memory of one optimizer step."""

    step_milliseconds: Annotated[float, Metric("ms", "Duration of the step.", chart="training")]
    sync_milliseconds: Annotated[float, Metric("ms", "Part of it spent on exchange between workers.", chart="training")]
    sync_bytes: Annotated[int, Metric("bytes", "Sent by all workers to each other.", chart="training")]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Training speed of the step.", chart="training")]
    resident_bytes: Annotated[int, Metric("bytes", "Resident memory of the largest worker.", chart="training")]
    cpu_load: Annotated[float, Metric("cores", "CPU time of rank 0 per second.", chart="training")]


class BatchRow(StepCost):
    """The metrics of a step on one batch."""

    loss: Annotated[float, Metric(LOSS_UNIT, "Mean loss of the step's batch.", chart="loss")]
    learning_rate: Annotated[float, Metric("", "Learning rate of the step.", chart="training")]
    gradient_norm: Annotated[float, Metric("", "Norm of the gradient before clipping.", chart="gradient")]
    gradient_norms: Annotated[
        dict[str, dict[str, float]],
        Metric("", "Mean and maximum of the norms in each group of parameters.", chart="gradient"),
    ]
    seconds: Annotated[float, Metric("s", "Training time so far.", order=Order.NOT_DECREASING)]
    gpu_bytes: Annotated[int, Metric("bytes", "Peak GPU memory of the largest worker.", chart="training")]
    samples: Annotated[str, Metric("", "Checksum of the ids of the step's windows.")]


class RoundCost(TypedDict, total=False):
    """Optimizer state of a round, in the row of its last step; only in rounds (`average`, `diloco`)."""

    state_bytes: Annotated[int, Metric("bytes", "Optimizer state written to and read from the lake.", chart="training")]
    states_lost: Annotated[
        int, Metric("workers", "Workers that did not find their latest optimizer state.", chart="training")
    ]


class StepRow(Position, Quality, BatchRow, RoundCost):
    """A line of ``train/metrics.jsonl``: one optimizer step. The model's losses are in the rows of evaluated steps."""


class EvaluationRow(Position, Quality):
    """A row of ``stats/metrics.csv``: one evaluation, and the steps since the previous one."""

    batch_loss: Annotated[float, Metric(LOSS_UNIT, "Mean loss of the batches.", over=mean("loss"))]
    learning_rate: Annotated[float, Metric("", "Learning rate of the last step.", Show.TABLE)]
    gradient_norm_mean: Annotated[
        float, Metric("", "Mean of the gradient's norms.", Show.TABLE, over=mean("gradient_norm"))
    ]
    gradient_norm_max: Annotated[
        float, Metric("", "Largest norm of the gradient.", Show.TABLE, over=maximum("gradient_norm"))
    ]
    seconds: Annotated[float, Metric("s", "Training time so far.", Show.TABLE, order=Order.NOT_DECREASING)]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Training speed.", Show.TABLE, over=tokens_per_second)]
    step_milliseconds_p50: Annotated[
        float, Metric("ms", "Median duration of a step.", over=percentile("step_milliseconds", 0.5))
    ]
    step_milliseconds_p95: Annotated[
        float, Metric("ms", "95th percentile of a step's duration.", over=percentile("step_milliseconds", 0.95))
    ]
    sync_milliseconds: Annotated[
        float, Metric("ms", "Mean time of a step spent on exchange between workers.", over=mean("sync_milliseconds"))
    ]
    sync_bytes: Annotated[int, Metric("bytes", "Sent by all workers to each other.", over=total("sync_bytes"))]
    peak_resident_bytes: Annotated[
        int, Metric("bytes", "Largest resident memory of a worker.", over=maximum("resident_bytes"))
    ]
    peak_gpu_bytes: Annotated[int, Metric("bytes", "Largest GPU memory of a worker.", over=maximum("gpu_bytes"))]
    cpu_load: Annotated[float, Metric("cores", "CPU time of rank 0 per second.", Show.TABLE, over=mean("cpu_load"))]


QUALITY = tuple(metrics_of(Quality))

BASELINE_LOSSES = MappingProxyType(
    {name: metric.baseline for name, metric in metrics_of(Quality).items() if metric.baseline}
)
"""The losses of baselines, and how log lines name them."""


def baselines_text(metrics: Mapping[str, Any]) -> str:
    """Return the baselines that `metrics` holds for a log line: ``unigram 6.47, bigram 5.31``."""
    return ", ".join(f"{label} {metrics[name]:.2f}" for name, label in BASELINE_LOSSES.items() if name in metrics)


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return one line of JSON for each row."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
