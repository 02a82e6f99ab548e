"""The earlier nights of a pipeline: what they were asked for, how much they did, and how long it took.

A night is a run whose steps are all done, on one cluster of its own that has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from jobs.config import Config
from jobs.errors import NightjarError
from jobs.lake.layout import Run
from jobs.lake.plain_json import as_number
from jobs.lake.runs import runs_beside
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import base_name, join
from jobs.prices.metering import ClusterUse, read_uses

ENDS = {"generate", "evaluate"}
"""The steps of which a run that is done has one."""
MOST_NIGHTS = 30
"""Latest runs of a pipeline that are read."""


@dataclass(frozen=True)
class Night:
    """One earlier run."""

    config: Mapping[str, Any]
    """Its configuration, with every default filled in."""
    corpus_bytes: float
    """Size of the corpus's files."""
    stats: Mapping[str, Mapping[str, Any]]
    """The statistics of each step."""
    use: ClusterUse

    def seconds(self, step: str) -> float | None:
        """Return how long the last attempt at a step took; None if the step did nothing, or did not run."""
        spans = [span for span in self.use.steps if span.name == step]
        if not spans or self.stats.get(step, {}).get("reused"):
            return None
        return spans[-1].ended - spans[-1].started

    def number(self, step: str, name: str) -> float | None:
        """Return a number of a step's statistics; None if it has none."""
        return as_number(self.stats.get(step, {}).get(name))

    @property
    def instance_seconds(self) -> float:
        """How long all instances ran together."""
        return sum(span.overlap(span.started, span.ended) for span in self.use.instances)

    @property
    def num_instances(self) -> int:
        """How many instances the cluster had at the same time, at the most."""
        moments = {span.started for span in self.use.instances}
        spans = self.use.instances
        return max((sum(each.count for each in spans if each.started <= at < each.ended) for at in moments), default=0)


def read_nights(run: Run, store: Store = ENVIRONMENT) -> list[Night]:
    """Return the nights of a run's pipeline before it, the latest last. What cannot be read is left out."""
    # Airflow's run ids end with their time.
    others = sorted(runs_beside(run, store), key=lambda other: base_name(other.uri).rpartition("__")[2])
    return [night for other in others[-MOST_NIGHTS:] for night in _read(other, store)]


def _read(run: Run, store: Store) -> Iterator[Night]:
    with suppress(AttributeError, LookupError, OSError, NightjarError, ValueError, TypeError):
        # Settings that the run did not have yet get their defaults, as its code did without them.
        config = Config.from_json(store.read_bytes(run.config).decode()).model_dump(mode="json")
        stats = store.read_json(join(run.stats, "stats.json"))["steps"]
        uses = read_uses(run, config, store, is_running=False)
        is_done = all(step.get("error") is None for step in stats.values()) and ENDS & stats.keys()
        if is_done and len(uses) == 1 and uses[0].steps:
            expected = {}
            with suppress(FileNotFoundError):
                expected = store.read_json(run.estimate)
            size = as_number(expected.get("corpus_bytes")) or as_number(stats.get("tokenize", {}).get("num_bytes"))
            if size or "tokenize" not in stats:  # a run that only generates reads no corpus
                yield Night(config, size or 0.0, stats, uses[0])
