"""The columns of ``metrics.csv``, and the metrics of each optimizer step from which they are computed.

To add a column to ``metrics.csv``, add a field to `EvaluationRow`. A column without ``over`` has the value of the last
step, so a new quantity needs a field in `StepRow`, too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, TypedDict

from jobs.metrics import Metric, Order, Show, metrics_of

TABLE, HEADLINE = Show.TABLE, Show.SUMMARY | Show.CARD
RESULT = HEADLINE | TABLE
NATS = "nats per token"
LOSS_UNIT = "nats per token; squared distance where the model predicts embeddings"


def over(function: Callable[[list[float]], float], name: str) -> Callable[[Sequence[Mapping[str, Any]]], float]:
    """Return a function that takes rows, and applies `function` to the list of their values of the metric `name`."""
    return lambda rows: function([row[name] for row in rows])


def nearest_rank(values: Iterable[float], share: float) -> float:
    """Return the nearest-rank percentile: at least this `share` (0 to 1) of the values are not above the result.

    The result is the smallest such value.
    """
    ascending = sorted(values)
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def tokens_per_second(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the tokens per second over the steps in `rows` together."""
    tokens: float = sum(row["tokens_per_second"] * row["step_milliseconds"] for row in rows)
    milliseconds: float = sum(row["step_milliseconds"] for row in rows)
    return tokens / milliseconds


mean, largest, total = partial(over, statistics.fmean), partial(over, max), partial(over, sum)
median, percentile_95 = (partial(over, partial(nearest_rank, share=share)) for share in (0.5, 0.95))
Loss = partial(Metric, show=HEADLINE, chart="loss")


class Position(TypedDict):
    """How far training has come."""

    step: Annotated[int, Metric("steps", "Optimizer steps so far.", TABLE, order=Order.INCREASING)]
    epoch: Annotated[float, Metric("epochs", "Epochs so far.", TABLE, chart="training", order=Order.NOT_DECREASING)]
    tokens: Annotated[int, Metric("tokens", "Tokens so far.", chart="training", order=Order.INCREASING)]


class Quality(TypedDict, total=False):
    """Losses and accuracies of the model, and baselines to compare with. The fields depend on the kind of the model."""

    train_loss: Annotated[
        float, Metric(LOSS_UNIT, "Mean loss on evenly spaced training windows.", RESULT, chart="loss")
    ]
    valid_loss: Annotated[
        float, Metric(LOSS_UNIT, "Mean loss on evenly spaced validation windows.", RESULT, chart="loss")
    ]
    unigram_loss: Annotated[
        float, Loss(NATS, "Validation loss of predictions by token frequency.", baseline="unigram", must_beat=True)
    ]
    bigram_loss: Annotated[
        float, Loss(NATS, "Validation loss of predictions from the previous token.", baseline="bigram")
    ]
    mean_vector_loss: Annotated[
        float,
        Loss("squared distance", "Validation loss of the mean embedding.", baseline="mean vector", must_beat=True),
    ]
    train_accuracy: Annotated[
        float, Metric("share", "Training targets that the model ranks first.", TABLE, chart="accuracy")
    ]
    valid_accuracy: Annotated[
        float, Metric("share", "Validation targets that the model ranks first.", RESULT, chart="accuracy")
    ]
    unigram_accuracy: Annotated[
        float,
        Metric("share", "Validation targets that are the most frequent training token.", HEADLINE, chart="accuracy"),
    ]
    perplexity: Annotated[float, Loss("", "Exponential of the validation loss.")]
    bits_per_byte: Annotated[
        float,
        Loss("bits per byte", "Validation loss per byte, to compare models whose vocabularies keep the whole text."),
    ]


class StepCost(TypedDict):
    """Time, communication and memory of one optimizer step."""

    step_milliseconds: Annotated[float, Metric("ms", "Duration of the step.", chart="training")]
    sync_milliseconds: Annotated[
        float, Metric("ms", "Part of the step spent on exchange between workers.", chart="training")
    ]
    sync_bytes: Annotated[int, Metric("bytes", "Data that the workers sent to each other.", chart="training")]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Training speed of the step.", chart="training")]
    resident_bytes: Annotated[int, Metric("bytes", "Resident memory of the largest worker.", chart="training")]
    cpu_load: Annotated[float, Metric("cores", "CPU time of rank 0 per second.", chart="training")]


class BatchRow(StepCost):
    """The metrics of one optimizer step and its batch."""

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
    """Optimizer state of a round, in the row of the round's last step. Only `average` and `diloco` have rounds."""

    state_bytes: Annotated[int, Metric("bytes", "Optimizer state written to and read from the lake.", chart="training")]
    states_lost: Annotated[
        int, Metric("workers", "Workers that did not find their latest optimizer state.", chart="training")
    ]


class StepRow(Position, Quality, BatchRow, RoundCost):
    """A line of ``train/metrics.jsonl``: one optimizer step. Only rows of evaluated steps have the model's losses."""


class EvaluationRow(Position, Quality):
    """A row of ``stats/metrics.csv``: one evaluation, and a summary of the steps since the previous evaluation."""

    batch_loss: Annotated[float, Metric(LOSS_UNIT, "Mean loss of the batches.", over=mean("loss"))]
    learning_rate: Annotated[float, Metric("", "Learning rate of the last step.", TABLE)]
    gradient_norm_mean: Annotated[float, Metric("", "Mean of the gradient's norms.", TABLE, over=mean("gradient_norm"))]
    gradient_norm_max: Annotated[
        float, Metric("", "Largest norm of the gradient.", TABLE, over=largest("gradient_norm"))
    ]
    seconds: Annotated[float, Metric("s", "Training time so far.", TABLE, order=Order.NOT_DECREASING)]
    interval_seconds: Annotated[
        float, Metric("s", "Training time since the previous row: of one epoch with train.eval_every=epoch.", TABLE)
    ]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Training speed.", TABLE, over=tokens_per_second)]
    step_milliseconds_p50: Annotated[
        float, Metric("ms", "Median duration of a step.", over=median("step_milliseconds"))
    ]
    step_milliseconds_p95: Annotated[
        float, Metric("ms", "95th percentile of a step's duration.", over=percentile_95("step_milliseconds"))
    ]
    sync_milliseconds: Annotated[
        float, Metric("ms", "Mean time of a step spent on exchange between workers.", over=mean("sync_milliseconds"))
    ]
    sync_bytes: Annotated[int, Metric("bytes", "Data that the workers sent to each other.", over=total("sync_bytes"))]
    peak_resident_bytes: Annotated[
        int, Metric("bytes", "Largest resident memory of a worker.", over=largest("resident_bytes"))
    ]
    peak_gpu_bytes: Annotated[int, Metric("bytes", "Largest GPU memory of a worker.", over=largest("gpu_bytes"))]
    cpu_load: Annotated[float, Metric("cores", "CPU time of rank 0 per second.", TABLE, over=mean("cpu_load"))]


QUALITY = tuple(metrics_of(Quality))

BASELINE_LOSSES = MappingProxyType(
    {name: metric.baseline for name, metric in metrics_of(Quality).items() if metric.baseline}
)
"""A dict from each metric that is the loss of a baseline to the baseline's name in log lines."""


def baselines_text(metrics: Mapping[str, Any]) -> str:
    """Format the baselines in `metrics` for a log line: ``unigram 6.47, bigram 5.31``."""
    return ", ".join(f"{label} {metrics[name]:.2f}" for name, label in BASELINE_LOSSES.items() if name in metrics)


_ENDS = {
    "stopped_by_time": "ended by train.max_seconds",
    "stopped_by_budget": "ended by the budget",
    "stopped_early": "ended by train.early_stopping_evals",
}


def length_text(stats: Mapping[str, Any]) -> str:
    """Return how long training was, and what ended it early: ``139 steps, ended by train.max_seconds``."""
    return ", ".join([f"{stats['num_steps']:,} steps", *(text for name, text in _ENDS.items() if stats.get(name))])
