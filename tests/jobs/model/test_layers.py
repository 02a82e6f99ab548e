"""Layers against torch, papers, and finite differences of their gradients."""

import cmath
import math

import pytest
import torch

from jobs.model.layers import (
    LearnedPositions,
    RMSNorm,
    RotaryPositions,
    SinusoidalPositions,
    interleaved,
    rotate,
    sinusoidal_positions,
)

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=GENERATOR, requires_grad=True)
ANGLES = torch.randn(3, 12, dtype=torch.float64, generator=GENERATOR)
COSINES_AND_SINES = torch.stack((ANGLES.cos(), ANGLES.sin()), dim=-1)


def norms():
    ours, theirs = RMSNorm(6, 1e-3).double(), torch.nn.RMSNorm(6, eps=1e-3).double()
    torch.nn.init.normal_(ours.weight, generator=torch.Generator().manual_seed(6))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_the_norm_equals_that_of_torch():
    ours, theirs = norms()
    torch.testing.assert_close(ours(X), theirs(X))


def test_gradients_of_the_norm_equal_finite_differences():
    ours, _ = norms()
    by_both = lambda x, weight: torch.func.functional_call(ours, {"weight": weight}, (x,))  # noqa: E731 - one use
    assert torch.autograd.gradcheck(by_both, (X, ours.weight))


def test_the_norm_has_the_type_of_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert RMSNorm(6, 1e-3)(X.float()).dtype == torch.bfloat16
    assert RMSNorm(6, 1e-3)(X.float()).dtype == torch.float32


def test_rows_of_a_pair_become_neighbours():
    rows = torch.arange(12.0).view(12, 1)  # two heads of six features
    assert interleaved(rows, 6).flatten().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_a_rotation_equals_its_formula():
    """Compare with sines and cosines for (B, T, H, E) with two heads."""
    even, odd = X[..., 0::2], X[..., 1::2]
    cosines, sines = (part.view(3, 4, 3) for part in (ANGLES.cos(), ANGLES.sin()))
    expected = torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), -1).flatten(-2)
    torch.testing.assert_close(rotate(X, COSINES_AND_SINES), expected)
    rounded = rotate(X.bfloat16(), COSINES_AND_SINES.float())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.double(), expected, atol=0.03, rtol=0.03)


def test_a_compiled_rotation_and_its_gradient_equal_the_other(monkeypatch):
    """Within torch.compile the rotation is computed without complex numbers."""
    outer = torch.randn(X.shape, dtype=X.dtype, generator=torch.Generator().manual_seed(7))
    expected = rotate(X, COSINES_AND_SINES)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = rotate(X, COSINES_AND_SINES)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, X, outer), torch.autograd.grad(expected, X, outer))


def test_gradients_of_a_rotation_equal_finite_differences():
    assert torch.autograd.gradcheck(lambda x: rotate(x, COSINES_AND_SINES), (X,))


def test_angles_of_rotary_positions_equal_their_formula():
    """The angle of pair i at position p is p / theta^(2 i / E), counterclockwise, as in transformers."""
    angles = RotaryPositions(num_positions=5, head_size=6, theta=100.0)(4, num_heads=2)
    expected = [[cmath.exp(1j * p * 100.0 ** (-i / 3)) for i in (0, 1, 2)] * 2 for p in range(4)]
    torch.testing.assert_close(torch.view_as_complex(angles), torch.tensor(expected, dtype=torch.complex64))


@pytest.mark.parametrize("size", [1, 2, 6, 7, 64])
def test_sinusoids_equal_the_formula_of_the_paper(size):
    vectors = sinusoidal_positions(50, size)
    assert vectors.shape == (50, size)
    assert vectors.dtype == torch.float32
    for position in (0, 1, 17, 49):
        for i in range(size):
            angle = position / 10000 ** (2 * (i // 2) / size)  # one wavelength for each pair
            expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            assert vectors[position, i].item() == pytest.approx(expected, abs=1e-6)


def test_a_shift_rotates_each_pair_by_one_angle():
    vectors = sinusoidal_positions(100, 8).double()
    for pair in range(4):
        sines, cosines = vectors[:, 2 * pair], vectors[:, 2 * pair + 1]
        angle = 5 / 10000 ** (2 * pair / 8)
        rotated = sines[:-5] * math.cos(angle) + cosines[:-5] * math.sin(angle)
        assert rotated == pytest.approx(sines[5:], abs=1e-6)


def test_sinusoids_are_not_trained_and_learned_positions_are():
    assert not SinusoidalPositions(4, 6).state_dict()
    learned = LearnedPositions(4, 6)
    learned(torch.zeros(3, 2, 6)).sum().backward()
    assert torch.equal(learned.weight.grad, torch.tensor([3.0, 3.0, 0.0, 0.0])[:, None].expand(4, 6))
    assert list(learned.state_dict()) == ["weight"]
