"""The baselines, of targets that are known."""

import numpy as np
import pytest
import torch

from jobs.config import ModelConfig
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.training.data import TrainingData
from jobs.training.evaluate import baselines

SHAPE = DataShape(vocab_size=4, num_positions=2, end_of_text=0)


class Listed:
    """Windows whose targets are given."""

    def __init__(self, targets):
        self.num_windows = len(targets)
        self._targets = np.array(targets)

    def read(self, ids):
        targets = self._targets[ids]
        return np.stack([np.zeros_like(targets), np.ones_like(targets), targets], axis=1)


def make(kind):
    data = TrainingData("x", Listed([1, 1, 1, 2, 3, 1]), Listed([1, 3, 3, 3, 2]), SHAPE, {"unigram_loss": 1.5}, 0.5)
    model = build_model(ModelConfig(kind=kind, embedding_size=4, num_heads=1, num_kv_heads=1, hidden_sizes=[3]), SHAPE)
    return model, data


def test_the_mean_vector_and_the_most_frequent_token_of_the_training_targets():
    model, data = make("embedding_regression")
    model.set_embeddings(torch.eye(4))
    # The mean is (0, 4, 1, 1) / 6: squared distances of tokens 1, 2, 3 are 6/36, 42/36, 42/36.
    expected = {"mean_vector_loss": (6 + 42 + 42 + 42 + 42) / 36 / 5, "unigram_accuracy": 0.2}
    assert baselines(model, data, 5) == pytest.approx(expected)
    assert baselines(model, data, 1) == pytest.approx({"mean_vector_loss": 6 / 36, "unigram_accuracy": 1.0})


def test_models_of_likelihoods_have_the_baselines_of_the_data():
    model, data = make("context_mlp")
    assert baselines(model, data, 5) == data.baselines
