"""The training job that the driver sends to each worker, the data of the training, and its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, cast

from jobs.config import Config
from jobs.datasets.windows import SIDES, WindowSet, find_windows
from jobs.errors import reading
from jobs.lake.layout import Lake, Run
from jobs.metrics import chosen
from jobs.metrics.columns import Position, Quality
from jobs.model.language_model import DataShape
from jobs.training.machine import Machine
from jobs.training.order import SampleOrder, seed_from
from jobs.training.record import Record
from jobs.training.schedule import Schedule

# Settings that may change between the attempts of a run, since the weights stay the same except for rounding.
CHANGEABLE_SETTINGS = {
    "workers", "checkpoint_every", "checkpoint_seconds", "keep_checkpoints", "keep_best", "max_restarts",
    "gang_timeout_seconds", "step_timeout_seconds", "eval_every", "state_every", "on_divergence", "max_rollbacks",
    "max_loss_rise", "device",
    "init",  # only the first attempt reads it, and `champion` may name another model later
    "epochs_of_new_text",  # its effect is in `epochs`
}  # fmt: skip


@dataclass(frozen=True)
class TrainingData:
    """A windows dataset, with the statistics that the windows step computed."""

    train: WindowSet
    valid: WindowSet
    shape: DataShape
    baselines: Quality
    """Losses (nats per token) and accuracy of baselines on the validation text."""
    valid_tokens_per_byte: float

    @classmethod
    def open(cls, place: Lake, fingerprint: str) -> TrainingData:
        """Open the dataset `fingerprint`; raise an InputError if it does not exist."""
        uri, manifest = find_windows(place, fingerprint)
        names = ("unigram_loss", "bigram_loss", "unigram_accuracy")
        with reading(uri, "delete it and run the windows step again"):
            train, valid = (WindowSet(uri, manifest, side) for side in SIDES)
            counts = manifest.counts
            shape = DataShape(counts["vocab_size"], train.size, counts["end_of_text"])
            baselines = cast("Quality", chosen(counts, names))
            return cls(train, valid, shape, baselines, counts["valid_tokens"] / counts["valid_bytes"])

    def position(self, steps: int, batch_size: int) -> Position:
        """Return how far training is after `steps` steps: in steps, epochs and tokens."""
        windows = steps * batch_size
        return {"step": steps, "epoch": windows / self.train.num_windows, "tokens": windows * self.train.size}


@dataclass(frozen=True)
class TrainingJob:
    """The description of a run's training that the driver sends to each worker."""

    run: Run
    config: Config
    windows: str
    """Fingerprint of the windows dataset."""
    skipped_batches: tuple[int, ...] = ()
    """Numbers of the batches that are left out because training diverged at them."""
    budget_seconds: float | None = None
    """Seconds of training, including earlier attempts, after which the budget ends it. None without a budget."""
    record: Record | None = None
    """The record of the training that a replay repeats. None if this run is not a replay."""
    weights: str = ""
    """The sha256 of the earlier model's weights from which training started. Empty for random weights."""
    is_for_new_text: bool = False
    """Whether `train.epochs_of_new_text` decided the number of epochs. Windows are then drawn evenly from all text."""

    def open_data(self) -> TrainingData:
        """Open the windows dataset; raise an InputError if it does not exist."""
        return TrainingData.open(Lake(self.run.lake_uri), self.windows)

    def schedule(self, windows: WindowSet) -> Schedule:
        """Return the schedule of the training over these windows."""
        return Schedule.of(self.config.train, windows.num_windows, windows.size, self.budget_seconds, self.record)

    def order(self, windows: WindowSet) -> SampleOrder:
        """Return the order in which these windows are trained on."""
        train, count, share = self.config.train, windows.num_windows, 1.0
        if self.is_for_new_text:
            share = min(1.0, train.num_steps(count, windows.size) * train.batch_size / count)
        return SampleOrder(windows.windows_per_shard, seed_from(train.seed, self.weights), share=share)

    def settings_hash(self) -> str:
        """Return a hash of all settings that affect the weights. A checkpoint with another hash is not resumed."""
        settings = {
            "windows": self.windows,
            "model": self.config.model.model_dump(),
            "train": self.config.train.model_dump(exclude=CHANGEABLE_SETTINGS),
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training, except for the values that the metrics of its steps contain."""

    is_complete: bool
    """False if training stopped because a process received a shutdown signal."""
    num_parameters: int
    dtype: str
    """The type in which matrix products were computed, such as ``bfloat16``."""
    device: str
    peak_resident_bytes: int
    """The largest peak of resident memory of a training process."""
    stopped_early: bool
    """True if the validation loss no longer improved (`train.early_stopping_evals`)."""
    best_step: int | None
    best_valid_loss: float | None
    stopped_by_time: bool = False
    """True if `train.max_seconds` ended the training."""
    stopped_by_budget: bool = False
    """True if the budget ended the training (`budget.usd`, `budget.usd_month`)."""
    restarts: int = 0
    """Restarts after a lost worker, over all attempts."""
    rollbacks: int = 0
    """Batches left out after a divergence."""
    workers: int = 1
    machine: Machine | None = None
    """The machine of rank 0."""

    def to_stats(self) -> dict[str, Any]:
        """Return the fields that belong to the statistics of the train step."""
        return {name: value for name, value in asdict(self).items() if name not in ("is_complete", "machine")}
