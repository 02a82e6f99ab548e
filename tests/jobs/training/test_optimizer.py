"""The optimizers, and the flat buffer of gradients."""

import copy

import pytest
import torch

from jobs.config import TrainConfig
from jobs.model.llama import Llama, LlamaConfig
from jobs.training.learner import Learner
from jobs.training.optimizer import CombinedOptimizer, FlatGradients, Muon, batches, build_optimizer, orthogonalize

CPU = torch.device("cpu")
WINDOWS = torch.arange(8 * 9).view(8, 9) % 11


def tiny_llama():
    return Llama(LlamaConfig(11, 8, 1, 8, 12, 2, 1, 10_000.0, 1e-5), seed=3)


def learner(**settings):
    config = {"learning_rate": 0.02, "dtype": "float32", "workers": 1, "warmup_steps": 0}
    return Learner(tiny_llama(), TrainConfig(**config | settings), CPU)


def train(learner, steps):
    """Take steps on the same windows; return the loss before each."""
    losses = []
    for _ in range(steps):
        losses.append(learner.backward(WINDOWS, 64))
        learner.update(0.02)
    return losses


def small_network():
    return torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False), torch.nn.RMSNorm(2))


def test_weight_decay_is_for_matrices_only():
    network = small_network()
    matrix, vector = (parameter.detach().clone() for parameter in network.parameters())
    optimizer = build_optimizer(network, TrainConfig(optimizer="adamw", learning_rate=0.1, weight_decay=0.5))
    FlatGradients(network.parameters(), 1)
    optimizer.step()  # all gradients are zero
    torch.testing.assert_close(network[0].weight.data, matrix * (1 - 0.1 * 0.5))
    assert torch.equal(network[1].weight.data, vector)


def test_gradients_are_views_of_one_buffer_and_are_clipped():
    network = small_network()
    gradients = FlatGradients(network.parameters(), 2)
    gradients.extra.copy_(torch.tensor([5.0, 7.0]))
    (network(torch.ones(1, 3)).sum() * 100).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    norm = torch.linalg.vector_norm(expected)
    assert torch.equal(gradients.buffer[:8], expected)
    assert norm > 1
    expected = expected / norm
    assert gradients.clip(1.0).item() == pytest.approx(norm.item())
    assert torch.linalg.vector_norm(gradients.norms).item() == pytest.approx(norm.item())
    torch.testing.assert_close(gradients.values, expected)
    assert gradients.extra.tolist() == [5, 7]
    gradients.clear()
    assert all(parameter.grad.abs().max() == 0 for parameter in network.parameters())


@pytest.mark.parametrize("settings", [
    {"optimizer": "adamw"}, {"optimizer": "adam"}, {"optimizer": "muon"}, {"optimizer": "muon", "nesterov": False},
    {"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "sgd", "momentum": 0.0},
])  # fmt: skip
def test_every_optimizer_lowers_the_loss(settings):
    losses = train(learner(**settings), 80)
    assert losses[-1] < losses[0] - (0.1 if settings["optimizer"] == "sgd" else 0.5)


def test_nesterov_steps_follow_the_formula():
    network = small_network()
    optimizer = build_optimizer(network, TrainConfig(optimizer="sgd", learning_rate=0.1, momentum=0.9))
    before = network[0].weight.detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    velocity, expected = 0.0, before
    for _ in range(3):
        velocity = 0.9 * velocity + 1
        expected = expected - 0.1 * (1 + 0.9 * velocity)
        optimizer.step()
    torch.testing.assert_close(network[0].weight.data, expected)


def test_muon_updates_the_hidden_matrices_by_steps_of_one_length():
    trained = learner(optimizer="muon", weight_decay=0.0)
    assert isinstance(trained.optimizer, CombinedOptimizer)
    names = {id(parameter): name for name, parameter in trained.model.named_parameters()}
    hidden = {names[id(parameter)] for parameter in trained.optimizer.param_groups[0]["params"]}
    assert hidden == {name for name in names.values() if "_proj." in name}
    before = copy.deepcopy(trained.model.state_dict())
    train(trained, 1)
    for name in hidden:
        change = trained.model.state_dict()[name] - before[name]
        size = torch.linalg.matrix_norm(change, ord=2) / max(change.shape) ** 0.5  # 0.2 * rate * singular value
        assert 0.6 < size / (0.2 * 0.02) < 1.3
    assert not torch.equal(trained.model.output_weight, before["model.embed_tokens.weight"])


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_in_bfloat16_is_that_of_torch(nesterov):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in ((6, 4), (4, 6), (5, 5))] for _ in range(2))
    settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    optimizers = (
        Muon([{"params": ours}], torch.bfloat16, **settings),
        torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **settings),
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = other.grad = torch.randn(one.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(optimizers[0].state[one]["momentum_buffer"], optimizers[1].state[other]["momentum_buffer"])


@pytest.mark.parametrize("shape", [(40, 20), (20, 40)])
def test_the_direction_of_muon_has_the_singular_vectors_of_the_momentum(shape):
    matrix, other = matrices = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    before = matrices.clone()
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrices)
    lengths = left.T @ found[0] @ right.T
    assert torch.equal(matrices, before)
    torch.testing.assert_close(found[1:], orthogonalize(other[None]))
    assert lengths.diagonal().min() > 0.6
    assert lengths.diagonal().max() < 1.3
    torch.testing.assert_close(lengths, torch.diag(lengths.diagonal()), atol=1e-4, rtol=0)
    assert orthogonalize(torch.zeros(1, *shape)).abs().max() == 0


@pytest.mark.parametrize("most_elements", [0, 24, 47, 48, 10_000])
def test_every_matrix_is_in_one_batch_with_others_of_its_shape(most_elements):
    matrices = [torch.full(shape, i) for i, shape in enumerate([(4, 6), (6, 4), (4, 6), (5, 5), (4, 6), (6, 4)])]
    found = list(batches(matrices, most_elements))
    assert sorted(int(matrix[0, 0]) for batch in found for matrix in batch) == list(range(6))
    for batch in found:
        assert len({matrix.shape for matrix in batch}) == 1
        assert len(batch) == 1 or sum(matrix.numel() for matrix in batch) <= most_elements
    assert len(found) == {0: 6, 24: 6, 47: 6, 48: 4, 10_000: 3}[most_elements]


@pytest.mark.parametrize(("dtype", "least", "most"), [("float32", 0, 1e-5), ("bfloat16", 1e-3, 0.1)])
def test_muon_computes_in_the_arithmetic_of_the_run(dtype, least, most):
    """In bfloat16, which many processors lack, the products of Muon take most of a step there."""
    trained = learner(optimizer="muon", weight_decay=0.0, dtype=dtype)
    matrix = trained.optimizer.param_groups[0]["params"][0]
    before = matrix.detach().clone()
    trained.backward(WINDOWS, 64)
    (exact,) = orthogonalize(matrix.grad[None])
    trained.update(0.02)
    change = (before - matrix.detach()) / (0.02 * 0.2 * max(matrix.shape) ** 0.5)
    assert least <= (change - exact).abs().max() < most


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_a_state_dictionary_restores_an_optimizer(optimizer):
    first = learner(optimizer=optimizer)
    train(first, 3)
    second = learner(optimizer=optimizer)
    second.model.load_state_dict(copy.deepcopy(first.model.state_dict()))
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    assert train(second, 4) == train(first, 4)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_the_learning_rate_reaches_every_parameter(optimizer):
    trained = learner(optimizer=optimizer)
    before = copy.deepcopy(trained.model.state_dict())
    trained.backward(WINDOWS, 64)
    trained.update(0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.model.state_dict().items())
