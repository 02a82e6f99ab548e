"""The transformer: gradients, causality, initial weights."""

import pytest
import torch

from jobs.model.llama import Llama, LlamaConfig, _attend_explicitly, attend

CONFIG = LlamaConfig(
    vocab_size=23, num_positions=24, num_layers=2, embedding_size=16, hidden_size=20, num_heads=4, num_kv_heads=2,
    rope_theta=10_000.0, norm_epsilon=1e-5,
)  # fmt: skip


def model_with_large_weights(dtype=torch.float32):
    """Return a model with larger weights than the initial ones, whose logits are all near 0."""
    model = Llama(CONFIG, seed=1).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(15)
    return model


def random_tokens(*shape, seed=0):
    return torch.randint(0, CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def test_the_gradient_equals_finite_differences():
    model = model_with_large_weights(torch.float64)
    tokens = random_tokens(2, 7)
    names, parameters = zip(*model.named_parameters(), strict=True)

    def loss(*values):
        logits = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (tokens[:, :-1],))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    gradients = torch.autograd.grad(loss(*parameters), parameters)
    generator = torch.Generator().manual_seed(2)
    for index, (name, gradient) in enumerate(zip(names, gradients, strict=True)):
        direction = torch.randn(gradient.shape, dtype=torch.float64, generator=generator)
        ends = [list(parameters) for _ in range(2)]
        for end, epsilon in zip(ends, (1e-5, -1e-5), strict=True):
            end[index] = parameters[index] + epsilon * direction
        slope = (loss(*ends[0]) - loss(*ends[1])) / 2e-5
        assert torch.isclose(slope, (gradient * direction).sum(), rtol=1e-6, atol=1e-9), name


def test_a_token_does_not_influence_earlier_positions():
    model = model_with_large_weights()
    tokens = random_tokens(1, 12)
    changed = tokens.clone()
    changed[0, 8] = (changed[0, 8] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        difference = (model(tokens) - model(changed)).abs().amax(dim=-1)[0]
    assert difference[:8].max() == 0
    assert (difference[8:] > 1e-4).all()


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_explicit_attention_equals_the_fused_kernel(num_kv_heads):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 4, 9, 8, generator=generator)
    keys, values = torch.randn(2, 2, num_kv_heads, 9, 8, generator=generator)
    fused = attend(queries, keys, values)
    torch.testing.assert_close(_attend_explicitly(queries, keys, values), fused, atol=1e-6, rtol=1e-5)


def test_initial_weights_depend_only_on_the_seed():
    one, same, other = Llama(CONFIG, seed=3), Llama(CONFIG, seed=3), Llama(CONFIG, seed=4)
    assert all(map(torch.equal, one.parameters(), same.parameters()))
    assert not torch.equal(one.output_weight, other.output_weight)
