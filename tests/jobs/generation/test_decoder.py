"""The decoder with fused weights and a cache gives the logits of the trained model, in any batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InputError
from jobs.generation.decoder import InferenceLlama
from jobs.generation.matrix import Dense, Int8, Packed, floating
from jobs.model.llama import Llama, LlamaConfig

VOCAB_SIZE, NUM_POSITIONS = 23, 80


def make_model(num_kv_heads=2, hidden_size=20):
    """Return a model with larger weights than the initial ones, and norms other than 1."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, num_positions=NUM_POSITIONS, num_layers=2, embedding_size=16, hidden_size=hidden_size,
        num_heads=4, num_kv_heads=num_kv_heads, rope_theta=10_000.0, norm_epsilon=1e-5,
    )  # fmt: skip
    model = Llama(config, seed=1).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(15)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
    return model


def random_tokens(*shape, seed=0):
    return torch.randint(0, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))


def cached_logits(model, tokens, lengths, num_steps):
    """Return the logits (B, steps + 1, V) after each prompt and after each token that follows."""
    cache = model.new_cache()
    prompts = [tokens[row, :length].tolist() for row, length in enumerate(lengths)]
    found = [model.prefill(prompts, range(len(lengths)), cache)]
    for step in range(num_steps):
        found.append(model.decode(tokens[range(len(lengths)), torch.tensor(lengths) + step], cache))
    return torch.stack(found, dim=1)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=6), st.integers(0, 10), st.sampled_from([1, 2, 4]))
def test_logits_equal_those_of_the_trained_model(lengths, num_steps, num_kv_heads):
    model = make_model(num_kv_heads)
    tokens = random_tokens(len(lengths), NUM_POSITIONS)
    with torch.inference_mode():
        found = cached_logits(InferenceLlama(model), tokens, lengths, num_steps)
        plain = model(tokens)
    expected = torch.stack([plain[row, at - 1 : at + num_steps] for row, at in enumerate(lengths)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.5


def test_logits_are_equal_up_to_the_last_position():
    model = make_model()
    tokens = random_tokens(2, NUM_POSITIONS)
    with torch.inference_mode():
        found = cached_logits(InferenceLlama(model), tokens, [1, 1], NUM_POSITIONS - 1)
        torch.testing.assert_close(found, model(tokens), atol=1e-5, rtol=1e-5)


@settings(max_examples=40)
@given(st.data(), st.sampled_from([1, 2, 4]))
def test_sequences_join_and_leave_without_effect_on_the_others(data, num_kv_heads):
    """Contexts fill up on the way, too: a sequence then goes on from its last half."""
    model = make_model(num_kv_heads)
    stream, contexts = InferenceLlama(model).stream(), []
    with torch.inference_mode():
        for _ in range(data.draw(st.integers(1, 6))):
            new = data.draw(st.lists(st.integers(1, NUM_POSITIONS), min_size=0 if contexts else 1, max_size=3))
            joining = [random_tokens(length, seed=len(contexts) + at).tolist() for at, length in enumerate(new)]
            if joining:
                stream.join(joining)
                contexts += joining
            for step in range(data.draw(st.integers(0, 70))):
                tokens = random_tokens(len(contexts), seed=step)
                stream.feed(tokens)
                contexts = [[*context, token] for context, token in zip(contexts, tokens.tolist(), strict=True)]
                contexts = [each[-NUM_POSITIONS // 2 :] if len(each) > NUM_POSITIONS else each for each in contexts]
            expected = [model(torch.tensor([context]))[0, -1] for context in contexts]
            torch.testing.assert_close(stream.logits, torch.stack(expected), atol=1e-5, rtol=1e-5)
            rows = data.draw(st.lists(st.sampled_from(range(len(contexts))), unique=True))
            stream.keep(rows)
            contexts = [contexts[row] for row in rows]
            torch.testing.assert_close(stream.logits, torch.stack(expected)[rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("lengths", [[5], [5, 1, 70]])
def test_logits_of_lower_precision_are_close(lengths, dtype):
    model = make_model(hidden_size=32)
    tokens = random_tokens(len(lengths), NUM_POSITIONS)
    with torch.inference_mode():
        exact = cached_logits(InferenceLlama(model), tokens, lengths, 9)
        near = cached_logits(InferenceLlama(model, dtype), tokens, lengths, 9)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert (near - exact).abs().mean() < 0.05 * exact.std()


def test_int8_rejects_sizes_that_the_kernel_does_not_support():
    with pytest.raises(InputError, match="multiples of 16; one is 20; use float32"):
        InferenceLlama(make_model(), "int8")


def test_an_int8_matrix_has_a_quarter_of_the_bytes_and_close_products():
    weight = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 10)
    weight[:, 0] = 0
    dense, integers = Dense(weight, torch.float32), Int8(weight)
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(1))
    errors = (integers.times(x) - dense.times(x)).abs().mean(dim=0)
    assert errors[0] == 0
    assert (errors[1:] < 0.02 * dense.times(x).abs().mean(dim=0)[1:]).all()
    torch.testing.assert_close(integers.added(torch.ones(7, 10), x), integers.times(x) + 1)
    assert integers.nbytes == 64 * 10 + 2 * 10
    assert dense.nbytes == 4 * 64 * 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_vectors", [1, 3, 64, 100])
def test_a_packed_matrix_multiplies_like_a_dense_one(dtype, num_vectors):
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN does not multiply bfloat16 on this processor")
    packed, dense = (make(torch.randn(48, 80, generator=seeded(0)), dtype) for make in (Packed, Dense))
    x, to = (torch.randn(num_vectors, size, generator=seeded(1)).to(dtype) for size in (48, 80))
    tolerance = {"rtol": 0.02, "atol": 0.05} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(packed.times(x), dense.times(x), **tolerance)
    torch.testing.assert_close(packed.added(to, x), dense.added(to, x), **tolerance)
    assert packed.nbytes == dense.nbytes


def test_matrices_are_packed_where_onednn_supports_them():
    weight = torch.randn(48, 80)
    assert isinstance(floating(weight, torch.float32), Packed if torch.backends.mkldnn.is_available() else Dense)
    assert isinstance(floating(weight, torch.float64), Dense)
    assert isinstance(floating(weight.to("meta"), torch.float32), Dense)


def seeded(seed):
    return torch.Generator().manual_seed(seed)
