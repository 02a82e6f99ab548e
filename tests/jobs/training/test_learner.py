"""What turns windows into gradients, and gradients into better weights."""

import pytest
import torch

from jobs.config import TrainConfig
from jobs.errors import InputError
from jobs.model.llama import Llama, LlamaConfig
from jobs.training.learner import Learner

CPU = torch.device("cpu")
WINDOWS = torch.arange(8 * 9).view(8, 9) % 11


def learner(**settings):
    model = Llama(LlamaConfig(11, 8, 1, 8, 12, 2, 1, 10_000.0, 1e-5), seed=3)
    return Learner(model, TrainConfig(**{"dtype": "float32", "workers": 1} | settings), CPU)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8, 99])
def test_accumulated_gradients_equal_those_of_the_whole_batch(micro_batch_size):
    whole, pieces = learner(), learner(micro_batch_size=micro_batch_size)
    assert pieces.backward(WINDOWS, 64) == pytest.approx(whole.backward(WINDOWS, 64))
    torch.testing.assert_close(pieces.gradients.values, whole.gradients.values)


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"train.compile: there is no C\+\+ compiler here \(no-such-compiler\)"):
        learner(compile=True)
