"""Training on a GPU: the losses of a processor, and the same weights whenever it is repeated. Skipped without a GPU."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch code

from jobs.config import resolve
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.model.loss import linear_cross_entropy, loss_and_hits
from jobs.training.learner import Learner, choose_device, choose_dtype

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU on this machine")

CPU = torch.device("cpu")
PRESETS = ("tiny", "averaged-dense", "attention-dense", "embedding-regression", "word2vec-attention")


def learner_of(preset, device, **settings):
    config = resolve("none", preset, settings)
    shape = DataShape(config.tokenize.vocab_size, config.windows.size, end_of_text=0)
    model = build_model(config.model, shape, seed=1)
    return Learner(model, config.train, device), shape


def losses_and_weights(preset, device, num_steps, **settings):
    learner, shape = learner_of(preset, device, **{"train.workers": 1} | settings)
    generator = torch.Generator().manual_seed(2)
    losses = []
    for _ in range(num_steps):
        windows = torch.randint(0, shape.vocab_size, (16, shape.num_positions + 1), generator=generator)
        losses.append(learner.backward(windows, 16 * learner.model.targets_per_window))
        learner.update(1e-3)
    return losses, [parameter.detach().cpu() for parameter in learner.model.parameters()]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_losses_equal_those_of_a_processor(preset, optimizer):
    settings = {"train.dtype": "float32", "train.optimizer": optimizer}
    expected, _ = losses_and_weights(preset, CPU, 5, **settings)
    found, _ = losses_and_weights(preset, choose_device(0), 5, **settings)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", ["auto", "float32"])
@pytest.mark.parametrize("preset", [*PRESETS, "small"])
def test_a_repeated_training_has_the_same_weights(preset, dtype):
    once, again = (losses_and_weights(preset, choose_device(0), 5, **{"train.dtype": dtype}) for _ in range(2))
    assert once[0] == again[0]
    assert all(map(torch.equal, once[1], again[1]))


def test_matrix_products_are_in_bfloat16_where_the_gpu_has_it():
    has_bfloat16 = torch.cuda.get_device_capability()[0] >= 8
    assert choose_dtype("auto", choose_device(0)) == (torch.bfloat16 if has_bfloat16 else torch.float32)
    learner, _ = learner_of("tiny", choose_device(0), **{"train.workers": 1})
    assert learner.gpu_bytes > 4 * learner.model.num_parameters


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cross_entropy_of_many_chunks(dtype):
    generator = torch.Generator().manual_seed(2)
    hidden, weight = (torch.randn(size, 64, generator=generator).cuda() for size in (70_000, 5000))
    hidden.requires_grad_()
    targets = torch.randint(0, 5000, (70_000,), generator=generator).cuda()
    loss = linear_cross_entropy(hidden, weight, targets, dtype)
    (gradient,) = torch.autograd.grad(loss, hidden)
    logits = F.linear(hidden.to(dtype), weight.to(dtype)).float()
    expected = F.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, hidden)[0], rtol=2e-2, atol=2e-2)
    total, hits = loss_and_hits(hidden.detach(), weight, targets, dtype)
    assert total == pytest.approx(expected.item(), rel=1e-5)
    assert hits == (logits.argmax(-1) == targets).sum().item()
