"""Baselines and evaluation windows."""

import numpy as np
import pytest
import torch

from jobs.config import ModelConfig
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.training.evaluate import baselines, evenly_spaced
from jobs.training.job import TrainingData

SHAPE = DataShape(vocab_size=4, num_positions=2, end_of_text=0)


class ListedWindows:
    """Windows with given last tokens."""

    def __init__(self, targets):
        self.num_windows = len(targets)
        self._targets = np.array(targets)

    def read(self, ids):
        targets = self._targets[ids]
        return np.stack([np.zeros_like(targets), np.ones_like(targets), targets], axis=1)


def make(kind):
    data = TrainingData(
        ListedWindows([1, 1, 1, 2, 3, 1]), ListedWindows([1, 3, 3, 3, 2]), SHAPE, {"unigram_loss": 1.5}, 0.5
    )
    model = build_model(ModelConfig(kind=kind, embedding_size=4, num_heads=1, num_kv_heads=1, hidden_sizes=[3]), SHAPE)
    return model, data


def test_baselines_of_a_regression_are_the_mean_vector_and_the_most_frequent_token():
    model, data = make("embedding_regression")
    model.set_embeddings(torch.eye(4))
    # The mean is (0, 4, 1, 1) / 6: squared distances of tokens 1, 2, 3 are 6/36, 42/36, 42/36.
    expected = {"mean_vector_loss": (6 + 42 + 42 + 42 + 42) / 36 / 5, "unigram_accuracy": 0.2}
    assert baselines(model, data, 5) == pytest.approx(expected)
    assert baselines(model, data, 1) == pytest.approx({"mean_vector_loss": 6 / 36, "unigram_accuracy": 1.0})


def test_models_with_a_cross_entropy_loss_have_the_baselines_of_the_dataset():
    model, data = make("context_mlp")
    assert baselines(model, data, 5) == data.baselines


def test_evaluation_windows_are_evenly_spaced():
    assert evenly_spaced(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly_spaced(3, 10).tolist() == [0, 1, 2]
