"""The record of an earlier training: the decisions that depended on a clock or a failure. A replay repeats them.

With `train.max_seconds` or a budget, learning rates, rounds and the last step depend on the speed of the machine.
``metrics.jsonl`` has all of these values, and JSON stores a float exactly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from jobs.config import TrainConfig
from jobs.errors import InputError, reading
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.strict_json import to_json
from jobs.lake.uri import base_name
from jobs.metrics.columns import StepRow


@dataclass(frozen=True)
class Record:
    """The decisions of a training that a replay repeats."""

    learning_rates: tuple[float, ...]
    """The learning rates of all steps, from the first to the last."""
    round_ends: tuple[int, ...] = ()
    """The steps after which a round ended. Empty with all-reduce."""
    skipped_batches: tuple[int, ...] = ()
    """The numbers of the batches that were left out after a divergence."""
    new_share: float | None = None
    """The share of the text that was new to the model that training started from. None if it was not known."""

    @classmethod
    def of_run(cls, run: Run, config: TrainConfig) -> Record:
        """Return the record of the complete training of `run`, whose settings are `config`."""
        rows = read_steps(run)
        try:
            skipped = store.read_json(run.attempts)["skipped_batches"]
        except FileNotFoundError:  # no attempt failed
            skipped = []
        with reading(run.metrics, "choose another run"):
            of_rounds = rows[config.allreduce_steps :] if config.strategy != "allreduce" else []
            ends = [row["step"] for row in of_rounds if row["sync_bytes"]]  # only the last step of a round has any
            rates = tuple(float(row["learning_rate"]) for row in rows)
            return cls(rates, tuple(ends), tuple(map(int, skipped)), _new_share(run))

    def round_end(self, step: int) -> int:
        """Return the last step of the round that contains the step after `step`."""
        return next(end for end in self.round_ends if end > step)


@dataclass(frozen=True)
class Replayed:
    """The content of the file `Run.replay`: the run that a replay makes again."""

    run: str
    """The folder of the run below `Lake.runs`."""
    weights: str
    """The sha256 of that run's ``model.safetensors``."""
    record: Record

    def to_json(self) -> bytes:
        """Return the content of the file."""
        return to_json(asdict(self), self.run)


def _new_share(run: Run) -> float | None:
    try:
        found = store.read_json(run.start).get("new_share")
    except FileNotFoundError:  # a run of an earlier version
        return None
    return None if found is None else float(found)


def read_replayed(run: Run) -> Replayed | None:
    """Return the run that `run` makes again. Return None if `run` is not a replay."""
    try:
        with reading(run.replay, "replay under another run id"):
            values: dict[str, Any] = json.loads(store.read_bytes(run.replay))
            known = values.pop("record")
            new_share = known.pop("new_share", None)  # earlier versions did not write it
            record = Record(**{name: tuple(each) for name, each in known.items()}, new_share=new_share)
            return Replayed(**values, record=record)
    except FileNotFoundError:
        return None


def read_steps(run: Run) -> list[StepRow]:
    """Return the metrics of all steps of a complete training. Check the hash of the file first."""
    manifest = store.read_manifest(run.train)
    if manifest is None:
        raise InputError(f"{run.uri}: the training of this run is not complete; continue the run first")
    data = store.read_file(run.train, manifest.entry(base_name(run.metrics)))
    with reading(run.metrics, "choose another run"):
        rows: list[StepRow] = [json.loads(line) for line in data.splitlines()]
        if not rows or any(after["step"] != before["step"] + 1 for before, after in pairwise(rows)):
            raise ValueError("steps are missing")
        return rows


def first_difference(one: Sequence[StepRow], other: Sequence[StepRow]) -> str:
    """Return a text that names the first step and metric at which two trainings differ. Return "" if none differs."""
    for before, now in zip(one, other, strict=False):
        for name in ("samples", "learning_rate", "loss"):
            if before.get(name) != now.get(name):
                return f"step {before['step']}: {name} {before.get(name)} there, {now.get(name)} here"
    return "" if len(one) == len(other) else f"{len(one)} steps there, {len(other)} here"
