"""Evaluation: loss and accuracy on windows of validation, never trained on, and as a mirror on windows of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from jobs.training.data import TrainingData, Windows
from jobs.training.learner import Learner
from jobs.training.order import Ids
from jobs.training.process_group import Group

BATCH_TOKENS = 8192
TRAIN_SHARE = 4  # training windows are a quarter of those of validation: their loss decides nothing
MAX_EXPONENT = 700.0  # of which a float holds the exponential


@dataclass(frozen=True)
class Score:
    """`loss` per target, in the model's unit; `accuracy` is the share of targets that the model would have said."""

    loss: float
    accuracy: float

    def __add__(self, other: Score) -> Score:
        """The sum of two workers' parts."""
        return Score(self.loss + other.loss, self.accuracy + other.accuracy)


def evaluate(learner: Learner, data: TrainingData, max_windows: int, group: Group) -> dict[str, float]:
    """The figures of an evaluation, the same on each worker.

    Losses and accuracies of both sides are the model's as it stands, on at most `max_windows` evenly spaced windows of
    validation and a quarter as many of training, always the same ones.
    """
    return figures(data, learner.model.loss_unit, *scores(learner, data, max_windows, group))


def scores(learner: Learner, data: TrainingData, max_windows: int, group: Group) -> tuple[Score, Score]:
    """Those of validation and of training; with a group that adds nothing up, a worker's parts of them."""
    valid = score(learner, data.valid, max_windows, group)
    return valid, score(learner, data.train, max(1, max_windows // TRAIN_SHARE), group)


def figures(data: TrainingData, loss_unit: str, valid: Score, train: Score) -> dict[str, float]:
    """What `evaluate` tells, from the scores of both sides."""
    told = {
        "train_loss": train.loss,
        "valid_loss": valid.loss,
        "train_accuracy": train.accuracy,
        "valid_accuracy": valid.accuracy,
    }
    if loss_unit == "nats":
        told |= {
            "perplexity": perplexity(valid.loss),
            "bits_per_byte": bits_per_byte(valid.loss, data.valid_tokens_per_byte),
        }
    return told


def score(learner: Learner, windows: Windows, max_windows: int, group: Group) -> Score:
    """The mean over at most `max_windows` evenly spaced windows; each worker computes its share."""
    ids = evenly_spaced(windows.num_windows, max_windows)
    mine = ids[group.share(len(ids))]
    batch_size = max(1, BATCH_TOKENS // windows.size)
    totals = torch.zeros(2, dtype=torch.float64)  # loss, hits
    for start in range(0, len(mine), batch_size):
        totals += torch.tensor(learner.score(windows.read(mine[start : start + batch_size])))
    group.sum(totals)
    loss, accuracy = (totals / (len(ids) * learner.model.targets_per_window)).tolist()
    return Score(loss, accuracy)


def perplexity(loss: float) -> float:
    """The number of equally likely tokens with the same loss."""
    return math.exp(min(loss, MAX_EXPONENT))


def bits_per_byte(loss: float, tokens_per_byte: float) -> float:
    """A loss in nats per token as bits for each byte of the text."""
    return loss / math.log(2) * tokens_per_byte


def evenly_spaced(num_items: int, at_most: int) -> Ids:
    """At most so many of the items 0 to `num_items`, evenly spaced, the first among them."""
    count = min(num_items, at_most)
    return np.arange(count, dtype=np.int64) * num_items // count
