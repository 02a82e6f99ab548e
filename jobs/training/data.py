"""The windows that a run trains and validates on, by their ids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.datasets.windows import WindowSet
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.model.language_model import DataShape
from jobs.training.order import Ids

BASELINES = ("unigram_loss", "bigram_loss", "unigram_accuracy")


class Windows:
    """One side of a dataset. The id of a window is its place: shards in their order, windows of each in theirs."""

    def __init__(self, window_set: WindowSet) -> None:
        self.size = window_set.size
        self.per_shard = window_set.windows_per_shard
        self.num_windows = window_set.num_windows
        self._set = window_set

    def read(self, ids: Ids) -> Tensor:
        """The windows `ids` as rows of `size` inputs and a target, (n, size + 1), int64."""
        return torch.from_numpy(self._set.read(ids))


@dataclass(frozen=True)
class TrainingData:
    """A dataset of windows, with what the windows step counted."""

    fingerprint: str
    train: Windows
    valid: Windows
    shape: DataShape
    baselines: dict[str, float]
    """What a model must beat that has learnt anything: losses in nats per token of the validation text, accuracy."""
    valid_tokens_per_byte: float

    @classmethod
    def open(cls, place: Lake, fingerprint: str) -> TrainingData:
        """Open the dataset `fingerprint`.

        Raises:
            InputError: if it does not exist.
        """
        manifest = store.read_manifest(place.windows(fingerprint))
        if manifest is None:
            raise InputError(f"{place.windows(fingerprint)}: no windows here; run the windows step first")
        train, valid = (Windows(WindowSet.open(place, fingerprint, side)) for side in ("train", "valid"))
        counts = manifest.counts
        return cls(
            fingerprint,
            train,
            valid,
            DataShape(counts["vocab_size"], train.size, counts["end_of_text"]),
            {name: counts[name] for name in BASELINES},
            counts["valid_tokens"] / counts["valid_bytes"],
        )
