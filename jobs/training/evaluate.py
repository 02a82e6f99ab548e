"""Validation: loss and accuracy on windows that are never trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from jobs.training.data import Windows
from jobs.training.group import Group
from jobs.training.learner import Learner
from jobs.training.order import Ids

BATCH_TOKENS = 8192
MAX_EXPONENT = 700.0  # of which a float holds the exponential


@dataclass(frozen=True)
class Validation:
    """`loss` per target, in the model's unit; `accuracy` is the share of targets that the model would have said."""

    loss: float
    accuracy: float

    @property
    def perplexity(self) -> float:
        """The number of equally likely tokens with the same loss."""
        return math.exp(min(self.loss, MAX_EXPONENT))

    def bits_per_byte(self, tokens_per_byte: float) -> float:
        """The loss as bits for each byte of the text."""
        return self.loss / math.log(2) * tokens_per_byte


def evaluate(learner: Learner, windows: Windows, max_windows: int, group: Group) -> Validation:
    """Validate on at most `max_windows` evenly spaced windows; each worker computes its share."""
    ids = evenly_spaced(windows.num_windows, max_windows)
    mine = ids[group.share(len(ids))]
    batch_size = max(1, BATCH_TOKENS // windows.size)
    totals = torch.zeros(2, dtype=torch.float64)  # loss, hits
    for start in range(0, len(mine), batch_size):
        totals += torch.tensor(learner.score(windows.read(mine[start : start + batch_size])))
    group.sum(totals)
    loss, accuracy = (totals / (len(ids) * learner.model.targets_per_window)).tolist()
    return Validation(loss, accuracy)


def evenly_spaced(num_items: int, at_most: int) -> Ids:
    """At most so many of the items 0 to `num_items`, evenly spaced, the first among them."""
    count = min(num_items, at_most)
    return np.arange(count, dtype=np.int64) * num_items // count
