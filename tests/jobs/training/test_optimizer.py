"""The optimizer, and the buffer of gradients."""

import pytest
import torch

from jobs.config import TrainConfig
from jobs.training.optimizer import FlatGradients, build_optimizer


def small_network():
    return torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.RMSNorm(2))


def test_matrices_decay_and_vectors_do_not():
    network = small_network()
    matrix, vector = (parameter.detach().clone() for parameter in network.parameters())
    optimizer = build_optimizer(network, TrainConfig(learning_rate=0.1, weight_decay=0.5))
    FlatGradients(network.parameters(), 1)
    optimizer.step()  # all gradients are zero
    torch.testing.assert_close(network[0].weight.data, matrix * (1 - 0.1 * 0.5))
    assert torch.equal(network[1].weight.data, vector)


def test_gradients_lie_in_one_buffer_and_are_clipped_to_a_norm():
    network = small_network()
    gradients = FlatGradients(network.parameters(), 2)
    gradients.riders.copy_(torch.tensor([5.0, 7.0]))
    (network(torch.ones(1, 3)).sum() * 100).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    norm = torch.linalg.vector_norm(expected)
    assert torch.equal(gradients.buffer[:8], expected)
    assert norm > 1
    expected = expected / norm
    assert gradients.clip(1.0).item() == pytest.approx(norm.item())
    assert torch.linalg.vector_norm(gradients.norms).item() == pytest.approx(norm.item())
    torch.testing.assert_close(gradients.values, expected)
    assert gradients.riders.tolist() == [5, 7]
    gradients.clear()
    assert all(parameter.grad.abs().max() == 0 for parameter in network.parameters())
