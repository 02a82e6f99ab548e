"""The windows dataset of a training."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.datasets.windows import WindowSet
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.metrics.training import Position, Quality
from jobs.model.language_model import DataShape


@dataclass(frozen=True)
class TrainingData:
    """A windows dataset, with the statistics that the windows step computed."""

    fingerprint: str
    train: WindowSet
    valid: WindowSet
    shape: DataShape
    baselines: Quality
    """Losses (nats per token) and accuracy of baselines on the validation text."""
    valid_tokens_per_byte: float

    @classmethod
    def open(cls, place: Lake, fingerprint: str) -> TrainingData:
        """Open the dataset `fingerprint`.

        Raises:
            InputError: if it does not exist.
        """
        manifest = store.read_manifest(place.dataset("windows", fingerprint))
        if manifest is None:
            raise InputError(f"{place.dataset('windows', fingerprint)}: no windows here; run the windows step first")
        train, valid = (WindowSet.open(place, fingerprint, side) for side in ("train", "valid"))
        counts = manifest.counts
        return cls(
            fingerprint,
            train,
            valid,
            DataShape(counts["vocab_size"], train.size, counts["end_of_text"]),
            {
                "unigram_loss": counts["unigram_loss"],
                "bigram_loss": counts["bigram_loss"],
                "unigram_accuracy": counts["unigram_accuracy"],
            },
            counts["valid_tokens"] / counts["valid_bytes"],
        )

    def position(self, steps: int, batch_size: int) -> Position:
        """Return how far training is after `steps` steps: in steps, epochs and tokens."""
        windows = steps * batch_size
        return {"step": steps, "epoch": windows / self.train.num_windows, "tokens": windows * self.train.size}
