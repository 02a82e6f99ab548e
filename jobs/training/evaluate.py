"""Evaluation: loss and accuracy of the model on validation and training windows, and of baselines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jobs.datasets.windows import WindowSet
from jobs.metrics.training import Quality
from jobs.model.language_model import LanguageModel
from jobs.training.data import TrainingData
from jobs.training.learner import Learner
from jobs.training.order import Ids
from jobs.training.process_group import Group

BATCH_TOKENS = 8192
TRAIN_SHARE = 4  # a quarter as many training windows as validation windows, since no decision depends on their loss
MAX_EXPONENT = 700.0  # a float overflows soon after exp(700)
MAX_BASELINE_WINDOWS = 2**16
_READ_AT_A_TIME = 2**10


@dataclass(frozen=True)
class Score:
    """Loss per target in the model's unit, and the share of targets that the model ranks first."""

    loss: float
    accuracy: float

    def __add__(self, other: Score) -> Score:
        """Return the sum of two workers' parts of a score."""
        return Score(self.loss + other.loss, self.accuracy + other.accuracy)


def evaluate(learner: Learner, data: TrainingData, max_windows: int, group: Group) -> Quality:
    """Evaluate the model; return the same metrics on each worker.

    Always the same windows are taken: at most `max_windows` evenly spaced validation windows, and a quarter as many
    training windows.
    """
    return to_metrics(data, learner.model.loss_unit, *scores(learner, data, max_windows, group))


def scores(learner: Learner, data: TrainingData, max_windows: int, group: Group) -> tuple[Score, Score]:
    """Return the scores on validation and training windows; in a `LocalGroup`, this worker's parts of them."""
    valid = score(learner, data.valid, max_windows, group)
    return valid, score(learner, data.train, max(1, max_windows // TRAIN_SHARE), group)


def to_metrics(data: TrainingData, loss_unit: str, valid: Score, train: Score) -> Quality:
    """Return the scores as metrics; perplexity and bits per byte are there if the loss is in nats."""
    metrics: Quality = {
        "train_loss": train.loss,
        "valid_loss": valid.loss,
        "train_accuracy": train.accuracy,
        "valid_accuracy": valid.accuracy,
    }
    if loss_unit == "nats":
        metrics |= {
            "perplexity": perplexity(valid.loss),
            "bits_per_byte": bits_per_byte(valid.loss, data.valid_tokens_per_byte),
        }
    return metrics


def score(learner: Learner, windows: WindowSet, max_windows: int, group: Group) -> Score:
    """Return the mean over at most `max_windows` evenly spaced windows, of which each worker computes its share."""
    ids = evenly_spaced(windows.num_windows, max_windows)
    share = ids[group.share(len(ids))]
    batch_size = max(1, BATCH_TOKENS // windows.size)
    totals = torch.zeros(2, dtype=torch.float64)  # loss, number of targets ranked first
    for start in range(0, len(share), batch_size):
        batch = torch.from_numpy(windows.read(share[start : start + batch_size]))
        totals += torch.tensor(learner.score(batch))
    group.sum(totals)
    loss, accuracy = (totals / (len(ids) * learner.model.targets_per_window)).tolist()
    return Score(loss, accuracy)


def perplexity(loss: float) -> float:
    """Return the exponential of a loss in nats: the number of equally likely tokens with the same loss."""
    return math.exp(min(loss, MAX_EXPONENT))


def bits_per_byte(loss: float, tokens_per_byte: float) -> float:
    """Convert a loss in nats per token to bits per byte of text."""
    return loss / math.log(2) * tokens_per_byte


def baselines(model: LanguageModel, data: TrainingData, eval_windows: int) -> Quality:
    """Return the baselines of the model's validation loss and accuracy, in the unit of its loss.

    A model with a cross-entropy loss has the baselines of the dataset. A model that predicts embeddings has
    `mean_vector_loss`, the squared distance to the mean embedding, and `unigram_accuracy`, the share of the most
    frequent token. Mean and most frequent token are those of at most 65,536 evenly spaced training windows; loss and
    share are measured on the validation windows of `evaluate`.
    """
    if model.loss_unit == "nats":
        return data.baselines
    embeddings = model.embeddings.detach().cpu()
    train = _last_targets(data.train, MAX_BASELINE_WINDOWS)
    valid = _last_targets(data.valid, eval_windows)
    mean = embeddings[train].mean(dim=0)
    return {
        "mean_vector_loss": (embeddings[valid] - mean).square().sum(dim=1).mean().item(),
        "unigram_accuracy": (valid == train.bincount().argmax()).float().mean().item(),
    }


def _last_targets(windows: WindowSet, max_windows: int) -> Tensor:
    """Return the last token of each of at most `max_windows` evenly spaced windows."""
    ids = evenly_spaced(windows.num_windows, max_windows)
    pieces = np.array_split(ids, -(-len(ids) // _READ_AT_A_TIME))
    return torch.from_numpy(np.concatenate([windows.read(piece)[:, -1] for piece in pieces]))


def evenly_spaced(num_items: int, max_items: int) -> Ids:
    """Return at most `max_items` evenly spaced numbers from 0 to `num_items`, the first of them 0."""
    count = min(num_items, max_items)
    return np.arange(count, dtype=np.int64) * num_items // count
