"""Reads the earlier nights of a pipeline: their settings, their amounts of work, and their times.

A run counts as a night only if it has finished all its steps, on one cluster that it created and that has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobs.config import Config
from jobs.errors import NightjarError
from jobs.lake.layout import Run
from jobs.lake.runs import runs_beside
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import as_number
from jobs.lake.uri import base_name, join
from jobs.prices.metering import ClusterUse, read_cluster_uses

ENDS = {"generate", "evaluate"}
"""The possible last steps of a run. Each finished run has one of them."""
MOST_NIGHTS = 30
"""Only this many runs of a pipeline are read, the latest ones."""


@dataclass(frozen=True)
class Night:
    """An earlier run of a pipeline: its configuration, statistics and instance time."""

    config: Mapping[str, Any]
    """The run's configuration, with every default filled in."""
    corpus_bytes: float
    """Size of the corpus's files."""
    stats: Mapping[str, Mapping[str, Any]]
    """A dict from steps to their statistics."""
    use: ClusterUse

    def seconds(self, step: str) -> float | None:
        """Return the seconds that the last attempt at a step took.

        Return None if the step did not run, or if it reused an earlier result.
        """
        spans = [span for span in self.use.steps if span.name == step]
        if not spans or self.stats.get(step, {}).get("reused"):
            return None
        return spans[-1].ended - spans[-1].started

    def number(self, step: str, name: str) -> float | None:
        """Return a number from a step's statistics. Return None if they do not contain it."""
        return as_number(self.stats.get(step, {}).get(name))

    @property
    def instance_seconds(self) -> float:
        """The time of all instances together, in seconds."""
        return sum(span.overlap(span.started, span.ended) for span in self.use.instances)

    @property
    def num_instances(self) -> int:
        """The largest number of instances that the cluster had at the same time."""
        moments = {span.started for span in self.use.instances}
        spans = self.use.instances
        return max((sum(each.count for each in spans if each.started <= at < each.ended) for at in moments), default=0)


def read_nights(run: Run, store: Store = ENVIRONMENT) -> list[Night]:
    """Return the nights of a run's pipeline, the latest last. Leave out the run itself and unreadable runs."""
    # Airflow's run ids end with the run's time, after two underscores.
    others = sorted(runs_beside(run, store), key=lambda other: base_name(other.uri).rpartition("__")[2])
    return [night for other in others[-MOST_NIGHTS:] for night in _read(other, store)]


def _read(run: Run, store: Store) -> Iterator[Night]:
    with suppress(AttributeError, LookupError, OSError, NightjarError, ValueError, TypeError):
        # Settings that are newer than the run get their defaults, which describe what the older code did.
        config = Config.from_json(store.read_bytes(run.config).decode()).model_dump(mode="json")
        stats = store.read_json(join(run.stats, "stats.json"))["steps"]
        uses = read_cluster_uses(run, config, store, is_running=False)
        is_done = all(step.get("error") is None for step in stats.values()) and ENDS & stats.keys()
        if is_done and len(uses) == 1 and uses[0].steps:
            expected = {}
            with suppress(FileNotFoundError):
                expected = store.read_json(run.estimate)
            size = as_number(expected.get("corpus_bytes")) or as_number(stats.get("tokenize", {}).get("num_bytes"))
            if size or "tokenize" not in stats:  # a run that only generates reads no corpus
                yield Night(config, size or 0.0, stats, uses[0])
