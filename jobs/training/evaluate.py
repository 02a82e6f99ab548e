"""Evaluation: loss and accuracy of the model on validation and training windows, and of baselines."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from jobs.datasets.windows import WindowSet
from jobs.metrics.columns import Quality
from jobs.model.language_model import LanguageModel
from jobs.training.job import TrainingData
from jobs.training.learner import Learner
from jobs.training.order import Ids
from jobs.training.process_group import Group

BATCH_TOKENS = 8192
TRAIN_SHARE = 4  # a quarter as many training windows as validation windows, since no decision depends on their loss
MAX_EXPONENT = 700.0  # a float overflows soon after exp(700)
MAX_BASELINE_WINDOWS = 2**16
_READ_AT_A_TIME = 2**10


def scores(learner: Learner, data: TrainingData, max_windows: int, group: Group) -> tuple[Tensor, Tensor]:
    """Return the scores on at most `max_windows` validation windows, and those on a quarter as many training windows.

    A score is a tensor of two numbers: the loss per target in the model's unit, and the share of targets that the model
    ranks first. The windows are the same at every call. In a `LocalGroup`, each worker returns its part of the scores.
    The sum of all parts is the result.
    """
    valid = _score(learner, data.valid, max_windows, group)
    return valid, _score(learner, data.train, max(1, max_windows // TRAIN_SHARE), group)


def to_metrics(data: TrainingData, loss_unit: str, valid: Tensor, train: Tensor) -> Quality:
    """Return the scores as metrics. Perplexity and bits per byte are included if the loss is in nats."""
    train_loss, train_accuracy = train.tolist()
    loss, accuracy = valid.tolist()
    metrics: Quality = {
        "train_loss": train_loss,
        "valid_loss": loss,
        "train_accuracy": train_accuracy,
        "valid_accuracy": accuracy,
    }
    if loss_unit == "nats":
        metrics["perplexity"] = math.exp(min(loss, MAX_EXPONENT))
        metrics["bits_per_byte"] = loss / math.log(2) * data.valid_tokens_per_byte
    return metrics


def _score(learner: Learner, windows: WindowSet, max_windows: int, group: Group) -> Tensor:
    """Return the score on at most `max_windows` evenly spaced windows. Each worker evaluates its share of them."""
    ids = evenly_spaced(windows.num_windows, max_windows)
    share = ids[group.share(len(ids))]
    batch_size = max(1, BATCH_TOKENS // windows.size)
    totals = torch.zeros(2, dtype=torch.float64)  # loss, number of targets ranked first
    for start in range(0, len(share), batch_size):
        batch = torch.from_numpy(windows.read(share[start : start + batch_size]))
        totals += torch.tensor(learner.score(batch))
    group.sum(totals)
    return totals / (len(ids) * learner.model.targets_per_window)


def baselines(model: LanguageModel, data: TrainingData, eval_windows: int) -> Quality:
    """Return the baselines of the model's validation loss and accuracy, in the unit of the model's loss.

    A model that predicts embeddings has `mean_vector_loss`, the squared distance to the mean embedding, and
    `unigram_accuracy`, the share of the most frequent token. The mean and the most frequent token come from at most
    65,536 evenly spaced training windows. Loss and share are measured on the validation windows that `scores` uses.
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
    """Return at most `max_items` evenly spaced integers from 0 to `num_items` (exclusive). The first is 0."""
    count = min(num_items, max_items)
    return np.arange(count, dtype=np.int64) * num_items // count
