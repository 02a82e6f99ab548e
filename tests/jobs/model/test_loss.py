"""The cross entropy against that of torch, and its gradients against finite differences."""

import pytest
import torch

from jobs.model import loss
from jobs.model.loss import linear_cross_entropy, loss_and_hits


@pytest.fixture
def problem(monkeypatch):
    """Return hidden states, output layer and targets of 11 positions, with chunks of 4."""
    monkeypatch.setattr(loss, "CHUNK_POSITIONS", 4)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(9, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    return hidden, weight, torch.randint(0, 9, (11,), generator=generator)


def test_gradients_equal_finite_differences(problem):
    hidden, weight, targets = problem
    tripled = lambda h, w: 3 * linear_cross_entropy(h, w, targets, torch.float64)  # noqa: E731 - one use, below
    assert torch.autograd.gradcheck(tripled, (hidden, weight))


def test_loss_and_hits_equal_those_without_chunks(problem):
    hidden, weight, targets = problem
    logits = hidden @ weight.T
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    assert linear_cross_entropy(hidden, weight, targets, torch.float64).item() == pytest.approx(expected)
    assert loss_and_hits(hidden, weight, targets, torch.float64) == (
        pytest.approx(expected),
        (logits.argmax(dim=1) == targets).sum().item(),
    )


def test_the_loss_in_bfloat16_is_close(problem):
    hidden, weight, targets = problem
    exact = linear_cross_entropy(hidden, weight, targets, torch.float64)
    rounded = linear_cross_entropy(hidden.float(), weight.float(), targets, torch.bfloat16)
    assert rounded.item() == pytest.approx(exact.item(), rel=0.01)
