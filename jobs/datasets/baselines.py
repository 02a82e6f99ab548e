"""Figures about token streams."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


def percentile(counts: Mapping[int, int], percent: float) -> int:
    """The smallest value that `percent` of all things do not exceed; `counts` says how many things have each value."""
    values = sorted(counts)
    up_to = np.cumsum([counts[value] for value in values])
    return values[int(np.searchsorted(up_to, up_to[-1] * percent / 100))]


def entropy(counts: npt.NDArray[np.integer]) -> float:
    """Entropy of the unigram distribution in nats per token; `counts` holds how often each token occurs."""
    seen = counts[counts > 0]
    total = seen.sum()
    return float(np.log(total) - (seen * np.log(seen)).sum() / total)


def unigram_accuracy(train: npt.NDArray[np.integer], valid: npt.NDArray[np.integer]) -> float:
    """Share of the validation text's tokens that are the training text's most frequent one."""
    return float(valid[train.argmax()] / valid.sum())


def unigram_loss(train: npt.NDArray[np.integer], valid: npt.NDArray[np.integer]) -> float:
    """Loss of a model that learned nothing but how often each token occurs, in nats per token of the validation text.

    It is the cross-entropy under the counts of the training text, smoothed by adding one to each.
    """
    log_probability = np.log(train + 1.0) - np.log(train.sum() + float(len(train)))
    return float(-(valid * log_probability).sum() / valid.sum())
