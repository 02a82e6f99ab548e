"""What a model must beat that has learnt anything: figures of knowing only how frequent each token is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jobs.model.language_model import LanguageModel
from jobs.training.data import TrainingData, Windows
from jobs.training.evaluate import evenly_spaced

MOST_WINDOWS = 2**16
_READ_AT_A_TIME = 2**10


def baselines(model: LanguageModel, data: TrainingData, eval_windows: int) -> dict[str, float]:
    """The baselines in the unit of the model's loss.

    For cross entropy these are the data's. For a model that predicts embeddings: `mean_vector_loss`, the squared
    distance to the mean embedding, and `unigram_accuracy`, the share of the most frequent token; mean and most frequent
    token are those of the training targets (at most 65,536 of them, evenly spaced), the figures are of the targets that
    validation takes.
    """
    if model.loss_unit == "nats":
        return data.baselines
    embeddings = model.embeddings.detach().cpu()
    train = _targets(data.train, MOST_WINDOWS)
    valid = _targets(data.valid, eval_windows)
    mean = embeddings[train].mean(dim=0)
    return {
        "mean_vector_loss": (embeddings[valid] - mean).square().sum(dim=1).mean().item(),
        "unigram_accuracy": (valid == train.bincount().argmax()).float().mean().item(),
    }


def _targets(windows: Windows, at_most: int) -> Tensor:
    """The targets of evenly spaced windows."""
    ids = evenly_spaced(windows.num_windows, at_most)
    pieces = np.array_split(ids, -(-len(ids) // _READ_AT_A_TIME))
    return torch.cat([windows.read(piece)[:, -1] for piece in pieces])
