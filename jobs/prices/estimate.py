"""Estimates how long a run will take and what it will cost, from earlier runs of its pipeline, called nights.

The seconds of a step are predicted from its amount of work: bytes of text, optimizer steps, or tokens to generate. Only
nights with the same cluster and the same settings of that step are used. If there is no such night, only an upper bound
is given. It follows from the limits in the settings.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

from jobs.config import Config
from jobs.config.stored import get
from jobs.errors import counted
from jobs.prices.book import ON_DEMAND, PriceBook, Rate, explain_missing
from jobs.prices.history import Night

LATEST = 3
"""The number of nights that an estimate is computed from: the latest ones.

Older nights are ignored, since the speed of machines changes. Three is the smallest number of nights whose median
ignores an outlier.
"""
SAME_WORK = 0.05
"""Two amounts of work that differ by a smaller share than this count as the same."""
_CLUSTER = (
    *("cluster.primary_instance_types", "cluster.core_instance_types", "cluster.core_instances"),
    *("cluster.task_instance_types", "cluster.task_instances", "spark.executors", "spark.executor_cores"),
)
_SPEED: Mapping[str, tuple[str, ...]] = {
    "tokenize": ("tokenize",),
    "windows": ("windows",),
    "embed": ("embed.size", "embed.window", "embed.negative", "embed.workers"),
    "train": (
        *("model", "windows.size", "tokenize.kind", "tokenize.vocab_size"),
        *(
            f"train.{name}"
            for name in (
                *("strategy", "sync_every", "delta_dtype", "allreduce_steps", "state_every", "workers", "batch_size"),
                *("micro_batch_size", "optimizer", "embeddings", "dtype", "device", "compile", "eval_every"),
                *("eval_windows", "checkpoint_every"),
            )
        ),
    ),
    "generate": ("model", "generate.dtype", "tokenize.kind", "use.model"),
    "evaluate": ("use.model",),
}
"""For each step: the settings that change its speed. A name without a dot, such as ``model``, is a whole section."""


@dataclass(frozen=True)
class Estimate:
    """The time and the cost that a run is expected to have."""

    corpus_bytes: int
    nights: int = 0
    """The number of nights that the estimate was computed from."""
    steps: Mapping[str, float] = field(default_factory=dict)
    """A dict from steps to their expected seconds."""
    other_seconds: float | None = None
    """The seconds in which the cluster runs no step, such as its start. None if not known."""
    instance_seconds: float | None = None
    """The expected time of all instances together. None if it is not known."""
    usd: float | None = None
    at_most: bool = False
    """Whether `usd` is an upper bound, because a spot price is not known."""
    reason: str | None = None
    """Why the time or the cost is not known."""
    bound_instance_seconds: float = 0.0
    """The maximum instance seconds that the limits in the settings allow."""
    bound_usd: float | None = None
    is_embedded: bool = False
    """Whether the cluster is one of the embedded EMR, which costs nothing. The costs are what AWS would charge."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``estimate.json`` in the run's folder."""
        return asdict(self)

    def __str__(self) -> str:
        """Return one line for the log."""
        bound = f"; at most {self._amount(self.bound_instance_seconds, self.bound_usd)} by its limits"
        if self.is_embedded:
            priced = "the prices are those of AWS, " if self.usd is not None or self.bound_usd is not None else ""
            bound += f"; {priced}the embedded EMR costs nothing"
        if self.instance_seconds is None:
            return f"Estimate: unknown ({self.reason}){bound if self.bound_instance_seconds else ''}"
        parts = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in self.steps.items())
        amount = self._amount(self.instance_seconds, self.usd, "at most " if self.at_most else "")
        why = f"; {self.reason}" if self.usd is None and not self.is_embedded else ""
        return f"Estimate from {counted(self.nights, 'night')}: {amount} ({parts}){bound}{why}"

    def _amount(self, instance_seconds: float, usd: float | None, bound: str = "") -> str:
        hours = f"{instance_seconds / 3600:.2f} instance hours"
        if usd is None:
            return hours if self.is_embedded else f"{hours}, an unknown price"
        return f"{hours}, {bound}{usd:.2f} USD"


def make_estimate(
    config: Config, corpus_bytes: int, nights: Sequence[Night], prices: PriceBook, region: str, limit_seconds: float
) -> Estimate:
    """Return the estimate of a run.

    Args:
        config: The configuration of the run, with the sizes of Spark's executors filled in.
        corpus_bytes: Size of the corpus's files.
        nights: Earlier nights of the pipeline, the latest last.
        prices: The known prices.
        region: The region of the cluster.
        limit_seconds: The longest time for which the cluster may run.
    """
    hourly = hourly_at_most(config, prices, region)
    cluster = config.cluster
    count = 1 + cluster.core_instances + cluster.task_instances
    bound_usd = None if hourly.usd is None else round(hourly.usd * limit_seconds / 3600, 4)
    unknown = Estimate(corpus_bytes, bound_instance_seconds=count * limit_seconds, bound_usd=bound_usd)
    same = [night for night in nights if _same(config, night, _CLUSTER)]
    steps = {step: predict_step(step, config, corpus_bytes, same) for step in config.steps}
    if lacking := [step for step, seconds in steps.items() if seconds is None]:
        which = f"no earlier night has the same cluster and settings of {lacking[0]}" if nights else "no earlier night"
        return replace(unknown, reason=which)
    found = {step: round(seconds, 1) for step, seconds in steps.items() if seconds is not None}
    other = statistics.median(_other_seconds(night) for night in same[-LATEST:])
    seconds = count * (sum(found.values()) + other)
    rate = _mean_rate(same[-1], prices, region)
    return replace(
        unknown,
        nights=len(same[-LATEST:]),
        steps=found,
        other_seconds=round(other, 1),
        instance_seconds=round(seconds, 1),
        usd=None if rate.usd is None else round(rate.usd * seconds / 3600, 4),
        at_most=rate.at_most,
        reason=explain_missing(rate.missing) if rate.missing else None,
    )


def hourly_at_most(config: Config, prices: PriceBook, region: str) -> Rate:
    """Return the highest possible cost per hour of a run's cluster, whichever of the instance types EMR chooses.

    Spot nodes count at the on-demand price, since EMR buys on-demand instances if there are no spot instances.
    """
    cluster = config.cluster
    fleets = [
        (cluster.primary_instance_types, 1),
        (cluster.core_instance_types, cluster.core_instances),
        (cluster.task_instance_types, cluster.task_instances),
    ]
    total, missing = 0.0, list[str]()
    for types, count in fleets:
        rates = [prices.rate(name, ON_DEMAND, region, cluster.root_volume_gb) for name in types] if count else []
        missing += [each for rate in rates for each in rate.missing]
        total += count * max((rate.usd or 0.0 for rate in rates), default=0.0)
    return Rate(None if missing else total, at_most=True, missing=tuple(dict.fromkeys(missing)))


def predict_step(step: str, config: Config, corpus_bytes: float, nights: Iterable[Night]) -> float | None:
    """Return the seconds that a step is expected to take. Return None if no night has the same settings of the step."""
    alike = [night for night in nights if night.seconds(step) is not None]
    alike = [night for night in alike if _same(config, night, _SPEED.get(step, ()))][-LATEST:]
    if step == "train":
        return _predict_training(config, corpus_bytes, alike)
    samples = [(_work(step, night.config, night.corpus_bytes), night.seconds(step) or 0.0) for night in alike]
    stored = config.model_dump(mode="json")
    return fit(samples)(_work(step, stored, corpus_bytes)) if samples else None


def _predict_training(config: Config, corpus_bytes: float, nights: Sequence[Night]) -> float | None:
    """Return the expected seconds of the pipeline step `train`: its fixed part plus its optimizer steps."""
    rows = []
    for night in nights:
        seconds, steps = night.number("train", "training_seconds"), night.number("train", "num_steps")
        windows = night.number("windows", "num_train_windows")
        if seconds and steps and windows:
            rows.append((seconds / steps, (night.seconds("train") or 0.0) - seconds, windows / night.corpus_bytes))
    if not rows:
        return None
    per_step, start, windows_per_byte = (float(statistics.median(column)) for column in zip(*rows, strict=True))
    steps = config.train.num_steps(max(1, round(windows_per_byte * corpus_bytes)), config.windows.size)
    training: float = per_step * steps
    if config.train.max_seconds is not None:
        training = min(training, config.train.max_seconds)
    return max(0.0, float(start)) + training


def _work(step: str, config: Mapping[str, Any], corpus_bytes: float) -> float:
    """Return the amount of work of a step, in an arbitrary unit: only ratios matter."""
    if step in ("tokenize", "windows", "evaluate"):
        return corpus_bytes
    if step == "embed":
        return corpus_bytes * float(get(config, "embed.epochs") or 1)
    if step == "generate":
        length = get(config, "generate.max_new_tokens") or get(config, "generate.max_new_words") or 1
        prompts = 1 if get(config, "generate.prompts_file") else len(get(config, "generate.prompts") or (1,))
        return float(prompts * (get(config, "generate.num_samples") or 1) * length)
    return 1.0


def fit(samples: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """Fit a line through samples of work and seconds. Return the line: seconds as a function of work.

    The slope is the median of the slopes between two samples (Theil-Sen). If all samples have the same work, the slope
    is not known. The function then assumes that more work takes proportionally more time, and that less work takes the
    same time. So the estimate is too high rather than too low.
    """
    slopes = [(t2 - t1) / (w2 - w1) for (w1, t1), (w2, t2) in combinations(samples, 2) if abs(w2 - w1) > SAME_WORK * w1]
    if not slopes:
        work, seconds = (statistics.median(column) for column in zip(*samples, strict=True))
        return lambda wanted: seconds * max(1.0, wanted / work)
    slope = min(max(0.0, statistics.median(slopes)), *(seconds / work for work, seconds in samples))
    fixed = statistics.median(seconds - slope * work for work, seconds in samples)
    return lambda wanted: fixed + slope * wanted


def _same(config: Config, night: Night, keys: Iterable[str]) -> bool:
    stored = config.model_dump(mode="json")
    return all(get(stored, key) == get(night.config, key) for key in keys)


def _other_seconds(night: Night) -> float:
    """Return for how many seconds an instance of a night ran while no step ran, as a mean over the instances."""
    in_steps = sum(each.overlap(span.started, span.ended) for each in night.use.instances for span in night.use.steps)
    return (night.instance_seconds - in_steps) / max(1, night.num_instances)


def _mean_rate(night: Night, prices: PriceBook, region: str) -> Rate:
    """Return the mean cost per hour of an instance of a night, at today's prices, weighted by instance seconds."""
    shares: dict[tuple[str, Any], float] = defaultdict(float)
    for span in night.use.instances:
        shares[span.type, span.market] += span.overlap(span.started, span.ended)
    total, at_most, missing = 0.0, False, list[str]()
    for (name, market), seconds in shares.items():
        rate = prices.rate(name, market, region, night.use.disk_gb)
        missing += rate.missing
        at_most = at_most or rate.at_most
        total += (rate.usd or 0.0) * seconds / max(night.instance_seconds, 1e-9)
    return Rate(None if missing else total, at_most, tuple(dict.fromkeys(missing)))
