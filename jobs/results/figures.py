"""The plots of a report, made from the statistics of a run. The title of a plot states its main result.

The units and the meanings of the statistics come from `jobs.metrics`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jobs.lake.strict_json import as_number
from jobs.metrics import Metric, metrics_of
from jobs.metrics.columns import BASELINE_LOSSES, EvaluationRow
from jobs.metrics.stats import StageRow, TokenizeStats, WindowsStats
from jobs.results.rows import Row
from jobs.results.svg import Bars, Curves, Line
from jobs.results.text import one_line, readable, with_unit

_COLUMNS = metrics_of(EvaluationRow)
_MOST_BARS = 12
_POWERS = tuple(2**power for power in range(48))
"""The upper bounds, in tokens, of the classes in the histogram of document lengths."""
_MOST_LABEL = 60


def label_of(name: str) -> str:
    """Return the name of a statistic as words."""
    return (
        f"{BASELINE_LOSSES[name]} baseline" if name in BASELINE_LOSSES else name.removeprefix("num_").replace("_", " ")
    )


def unit_of(metric: Metric, values: Mapping[str, Any] | None = None) -> str:
    """Return the unit of a metric.

    The unit of a loss depends on the kind of model. `values` are the model's statistics: only those of an embedding
    regression have a `mean_vector_loss`.
    """
    units = [unit.strip() for unit in metric.unit.split(";")]
    is_embedding = "mean_vector_loss" in (values or {})
    return "squared distance" if is_embedding and len(units) > 1 else units[0]


def text_of(value: Any, label: str, unit: str) -> str:
    """Return a value as text to show beside `label`. Leave out the unit if the label already contains it."""
    is_said = unit != "bytes" and unit.replace("/s", " per second") in label
    return with_unit(value, "" if is_said else unit)


def of_training(rows: Sequence[Row]) -> Iterator[Curves]:
    """Yield the plots of a training: losses, accuracy, learning rate, gradient, speed and memory."""
    losses = ("train_loss", "valid_loss", *BASELINE_LOSSES)
    yield from _curves("loss", rows, losses if _line(rows, "valid_loss") else ("batch_loss",), _loss_title(rows))
    accuracies = ("train_accuracy", "valid_accuracy", "unigram_accuracy")
    if (accuracy := _last(rows, "valid_accuracy")) is not None:
        title = f"{with_unit(accuracy, 'share')} of validation targets are ranked first at the last step"
        yield from _curves("accuracy", rows, accuracies, title)
    for plot, names, title in (
        ("learning-rate", ("learning_rate",), _range_title(rows, "learning_rate", "Learning rate")),
        (
            "gradient-norm",
            ("gradient_norm_mean", "gradient_norm_max"),
            _range_title(rows, "gradient_norm_max", "Largest gradient norm"),
        ),
        ("speed", ("tokens_per_second",), _median_title(rows, "tokens_per_second", "Training speed")),
        (
            "memory",
            ("peak_resident_bytes", "peak_gpu_bytes"),
            _peak_title(rows, "peak_resident_bytes", "Memory of a worker"),
        ),
    ):
        yield from _curves(plot, rows, names, title, from_zero=True)


def _curves(
    plot: str, rows: Sequence[Row], names: Iterable[str], title: str, *, from_zero: bool = False
) -> Iterator[Curves]:
    """Yield one plot of the columns `names` that have values. Yield nothing if no column has any."""
    chosen = [name for name in names if _line(rows, name) and not (name == "peak_gpu_bytes" and not _last(rows, name))]
    if chosen:
        lines = tuple(
            Line(label_of(name), _line(rows, name), baseline=name in BASELINE_LOSSES or name == "unigram_accuracy")
            for name in chosen
        )
        note = " ".join(f"{label_of(name).capitalize()}: {_COLUMNS[name].meaning}" for name in chosen)
        yield Curves(plot, title, unit_of(_COLUMNS[chosen[0]], rows[0]), lines, note, from_zero)


def _line(rows: Sequence[Row], name: str) -> tuple[tuple[float, float], ...]:
    """Return the points of a column over the steps. Return () if no value is finite."""
    points = tuple((_number(row.get("step")), _number(row[name])) for row in rows if name in row)
    points = tuple((x, y) for x, y in points if math.isfinite(x))
    return points if any(math.isfinite(y) for _, y in points) else ()


def _number(value: Any) -> float:
    """Return a finite number as a float, and NaN for anything else."""
    found = as_number(value)
    return math.nan if found is None else float(found)


def _last(rows: Sequence[Row], name: str) -> float | None:
    return next((y for _, y in reversed(_line(rows, name)) if math.isfinite(y)), None)


_COMPARED = (
    ("valid_loss", "Validation loss", min, "lowest"),
    ("bits_per_byte", "Validation loss per byte", min, "lowest"),
    ("valid_accuracy", "Validation accuracy", max, "highest"),
    ("batch_loss", "Loss of the batches", min, "lowest"),
    ("learning_rate", "Learning rate", max, "highest"),
    ("gradient_norm_max", "Gradient norm", max, "highest"),
    ("tokens_per_second", "Training speed", max, "highest"),
)
"""The columns that have a plot in a comparison, with the words and the function for the plot's title.

The title names the run with the lowest or the highest value at the last step.
"""


def of_comparison(runs: Mapping[str, Sequence[Row]]) -> Iterator[Curves]:
    """Yield the plots that compare runs. `runs` is a dict from a run's name to its rows of metrics.

    Each run has one curve in a plot, with the same colour in all plots.

    Losses in different units, such as those of token models and of embedding regressions, are in separate plots.
    """
    for name, what, best, extreme in _COMPARED:
        by_unit: dict[str, list[Line]] = {}
        for colour, (run, rows) in enumerate(runs.items()):
            if points := _line(rows, name):
                by_unit.setdefault(unit_of(_COLUMNS[name], rows[0]), []).append(Line(run, points, colour=colour))
        for unit, lines in by_unit.items():
            first = best(lines, key=lambda line: line.last)
            where, value = one_line(first.label, _MOST_LABEL), with_unit(first.last, unit)
            title = f"{what} at the last step is {extreme} in {where}: {value}"
            baselines = _shared_baselines(runs, lines) if name == "valid_loss" else []
            yield Curves(f"compare-{name}", title, unit, (*lines, *baselines), _COLUMNS[name].meaning)


def _shared_baselines(runs: Mapping[str, Sequence[Row]], lines: Sequence[Line]) -> list[Line]:
    """Return the baselines whose last value is the same in all runs of `lines`, so that one line is enough."""
    chosen = [runs[line.label] for line in lines]
    found = []
    for name, baseline in BASELINE_LOSSES.items():
        values = {_last(rows, name) for rows in chosen}
        longest = max((_line(rows, name) for rows in chosen), key=len)
        if len(values) == 1 and None not in values:
            found.append(Line(f"{baseline} baseline", longest, baseline=True))
    return found


def _loss_title(rows: Sequence[Row]) -> str:
    valid = _last(rows, "valid_loss")
    if valid is None:
        return "Loss of the batches, before the first evaluation"
    title = f"Validation loss is {valid:.3f} {unit_of(_COLUMNS['valid_loss'], rows[0])} at the last step"
    name = next((name for name in BASELINE_LOSSES if _last(rows, name) is not None), None)
    if name is None:
        return title
    gap = (_last(rows, name) or 0.0) - valid
    return f"{title}, {abs(gap):.3f} {'below' if gap >= 0 else 'above'} the {BASELINE_LOSSES[name]} baseline"


def _numbers(rows: Sequence[Row], name: str) -> list[float]:
    return [y for _, y in _line(rows, name) if math.isfinite(y)]


def _range_title(rows: Sequence[Row], name: str, what: str) -> str:
    found = _numbers(rows, name) or [math.nan]
    return f"{what} is {readable(max(found))} at most, and {readable(found[-1])} at the last step"


def _median_title(rows: Sequence[Row], name: str, what: str) -> str:
    found = _numbers(rows, name) or [math.nan]
    return f"{what} is {with_unit(statistics.median(found), _COLUMNS[name].unit)} in the median"


def _peak_title(rows: Sequence[Row], name: str, what: str) -> str:
    return f"{what} peaks at {with_unit(max(_numbers(rows, name), default=math.nan), _COLUMNS[name].unit)}"


def of_steps(seconds: Mapping[str, Any]) -> Iterator[Bars]:
    """Yield the plot of the durations of the pipeline steps. `seconds` is a dict from a step to its duration."""
    groups = tuple((step, (_number(each),)) for step, each in seconds.items() if math.isfinite(_number(each)))
    if groups:
        longest = max(groups, key=lambda group: group[1])
        total = sum(values[0] for _, values in groups)
        title = f"The steps took {with_unit(total, 's')}, {longest[0]} the longest"
        yield Bars(
            "steps", title, "s", ("duration",), groups, "Start of the cluster and waits between steps are not included."
        )


def of_data(tokenize: Mapping[str, Any], windows: Mapping[str, Any]) -> Iterator[Bars]:
    """Yield the plots of the data: lengths of documents, documents left out, the split, frequent tokens."""
    yield from _lengths(tokenize)
    names = (
        "num_empty_documents", "num_too_short_documents", "num_too_long_documents", "num_duplicate_documents",
        "num_near_duplicate_documents", "num_null_records", "num_forgotten_documents",
    )  # fmt: skip
    left_out = [(label_of(name), (_number(tokenize[name]),)) for name in names if _number(tokenize.get(name)) > 0]
    if left_out:
        total = sum(values[0] for _, values in left_out)
        yield Bars("left-out", f"{total:,.0f} documents were left out", "documents", ("left out",), tuple(left_out))
    sides = {"training": _number(windows.get("train_tokens")), "validation": _number(windows.get("valid_tokens"))}
    if all(map(math.isfinite, sides.values())):
        share = with_unit(sides["validation"] / max(1, sum(sides.values())), "share")
        method = one_line(windows.get("split", "not known"), _MOST_LABEL)
        note = f"{metrics_of(WindowsStats)['split'].meaning} Here: {method}."
        groups = tuple((side, (value,)) for side, value in sides.items())
        yield Bars("split", f"{share} of the tokens are for validation", "tokens", ("tokens",), groups, note)
    if frequent := _pairs(windows.get("most_frequent_tokens"))[:_MOST_BARS]:
        groups = tuple((repr(str(text))[1:-1], (share,)) for text, share in frequent)
        title = f"The most frequent token is {with_unit(frequent[0][1], 'share')} of the text"
        yield Bars("frequent-tokens", title, "share", ("share of the tokens",), groups)


def _pairs(values: Any) -> list[tuple[Any, float]]:
    """Return those lists in `values` that are pairs with a finite number as second value. Leave out everything else."""
    pairs = [each for each in values if isinstance(each, list) and len(each) == 2] if isinstance(values, list) else []
    return [(first, _number(second)) for first, second in pairs if math.isfinite(_number(second))]


def _lengths(tokenize: Mapping[str, Any]) -> Iterator[Bars]:
    """Yield the histogram of document lengths. If an earlier version wrote only percentiles, plot those."""
    median = as_number(tokenize.get("tokens_per_document_p50"))
    if median is None:
        return
    title = f"Half of the documents have at most {readable(median)} tokens"
    classes = {
        upper: count for upper, count in _pairs(tokenize.get("tokens_per_document_histogram")) if upper in _POWERS
    }
    if classes:
        uppers = (upper for upper in _POWERS if min(classes) <= upper <= max(classes))  # also empty classes
        groups = tuple(
            (f"{upper // 2 + 1:,} to {upper:,}" if upper > 2 else f"{upper}", (classes.get(upper, 0.0),))
            for upper in uppers
        )
        note = "Documents by their length in tokens."
        yield Bars("document-lengths", title, "documents", ("documents",), groups, note)
        return
    names = ("p5", "p50", "mean", "p95", "max")
    found = {name: _number(tokenize.get(f"tokens_per_document_{name}")) for name in names}
    groups = tuple((_PERCENTILES[name], (value,)) for name, value in found.items() if math.isfinite(value))
    note = metrics_of(TokenizeStats)["tokens_per_document_mean"].meaning
    yield Bars("document-lengths", title, "tokens", ("tokens",), groups, note)


_PERCENTILES = {"p5": "5th percentile", "p50": "median", "mean": "mean", "p95": "95th percentile", "max": "longest"}


def of_spark(stages: Sequence[Row]) -> Iterator[Bars]:
    """Yield the plots of Spark's work: tasks, shuffle and stragglers."""
    if not stages:
        return
    units = metrics_of(StageRow)
    by_step: dict[str, list[Row]] = {}
    for row in stages:
        by_step.setdefault(str(row.get("step")), []).append(row)

    def sums(*names: str) -> tuple[tuple[str, tuple[float, ...]], ...]:
        return tuple(
            (step, tuple(sum(_number(row.get(name, 0)) for row in rows) for name in names))
            for step, rows in by_step.items()
        )

    tasks = sums("tasks", "failed_tasks")
    total, failed = (sum(values[number] for _, values in tasks) for number in (0, 1))
    title = f"Spark ran {total:,.0f} tasks in {len(stages):,} stages; {failed:,.0f} failed"
    series = ("tasks", "failed tasks") if failed else ("tasks",)
    bars = tuple((step, values[: len(series)]) for step, values in tasks)
    yield Bars("spark-tasks", title, units["tasks"].unit, series, bars)
    shuffle = sums("shuffle_read_bytes", "shuffle_write_bytes")
    moved = sum(values[1] for _, values in shuffle)
    if moved:
        title = f"Spark shuffled {with_unit(moved, 'bytes')}"
        yield Bars("spark-shuffle", title, "bytes", ("read", "written"), shuffle)
    yield from _stragglers(stages)


def _stragglers(stages: Sequence[Row]) -> Iterator[Bars]:
    """Yield the plot of the stages in which the longest task took the most seconds beyond the mean."""
    found = []
    for row in stages:
        mean, longest = _number(row.get("task_seconds_mean")), _number(row.get("task_seconds_max"))
        if _number(row.get("tasks")) > 1 and mean > 0 and longest >= mean:
            found.append((f"{row.get('step')}, stage {row.get('stage')}", (mean, longest)))
    if found:
        worst = sorted(found, key=lambda each: each[1][0] - each[1][1])[: _MOST_BARS // 2]
        ratio = max(longest / mean for _, (mean, longest) in worst[:1])
        title = f"Stragglers: in the worst stage the longest task took {ratio:.1f} times the mean"
        note = "The stages in which the longest task took the most seconds beyond the mean."
        yield Bars("spark-stragglers", title, "s", ("mean task", "longest task"), tuple(worst), note)
