"""Compressed weight deltas are decoded with the promised precision."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from jobs.training.local_sgd.round import decode, encode

SHAPES = st.sampled_from([(1,), (7,), (3, 5), (4, 64), (2, 3, 8)])


def round_trip(delta, dtype):
    tensors = load(save(encode({"weight": delta}, dtype)))
    return decode("weight", tensors.__getitem__)


@given(SHAPES, st.integers(0, 2**31), st.floats(1e-12, 1e6))
def test_the_error_of_int8_is_at_most_a_254th_of_the_rows_largest_number(shape, seed, size):
    delta = size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    largest = delta.abs().amax(dim=-1, keepdim=True)
    assert ((round_trip(delta, "int8") - delta).abs() <= largest / 254 * (1 + 1e-4)).all()


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 24), ("bfloat16", 8)])
def test_the_error_of_floats_is_their_rounding(dtype, bits):
    delta = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert ((round_trip(delta, dtype) - delta).abs() <= delta.abs() * 2.0**-bits).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_delta_of_zeros_stays_zero(dtype):
    assert round_trip(torch.zeros(4, 3), dtype).tolist() == torch.zeros(4, 3).tolist()


def test_int8_has_a_quarter_of_the_size_of_float32():
    delta = torch.randn(256, 256)
    sizes = {dtype: len(save(encode({"weight": delta}, dtype))) for dtype in ("float32", "bfloat16", "int8")}
    assert sizes["int8"] < 0.26 * sizes["float32"]
    assert sizes["bfloat16"] < 0.51 * sizes["float32"]
