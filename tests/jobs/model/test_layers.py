"""Written-out gradients against finite differences, results against torch's."""

import torch

from jobs.model.layers import RMSNorm, interleaved, rotate

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=GENERATOR, requires_grad=True)
ANGLES = torch.randn(3, 12, dtype=torch.float64, generator=GENERATOR)
NUMBERS = torch.polar(torch.ones_like(ANGLES), ANGLES)


def norms():
    ours, theirs = RMSNorm(6, 1e-3).double(), torch.nn.RMSNorm(6, eps=1e-3).double()
    torch.nn.init.normal_(ours.weight, generator=torch.Generator().manual_seed(6))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_the_norm_is_torchs():
    ours, theirs = norms()
    torch.testing.assert_close(ours(X), theirs(X))


def test_the_norms_gradients_equal_finite_differences():
    ours, _ = norms()
    by_both = lambda x, weight: torch.func.functional_call(ours, {"weight": weight}, (x,))  # noqa: E731 - one use
    assert torch.autograd.gradcheck(by_both, (X, ours.weight))


def test_within_autocast_the_norm_gives_what_matrix_products_want():
    with torch.autocast("cpu", torch.bfloat16):
        assert RMSNorm(6, 1e-3)(X.float()).dtype == torch.bfloat16
    assert RMSNorm(6, 1e-3)(X.float()).dtype == torch.float32


def test_rows_that_turn_together_become_neighbours():
    rows = torch.arange(12.0).view(12, 1)  # two heads of six features
    assert interleaved(rows, 6).flatten().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_a_rotation_turns_neighbours_by_their_angle():
    """(B, T, H, E), two heads: by sines and cosines, written down anew."""
    even, odd = X[..., 0::2], X[..., 1::2]
    cosines, sines = (part.view(3, 4, 3) for part in (ANGLES.cos(), ANGLES.sin()))
    expected = torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), -1).flatten(-2)
    torch.testing.assert_close(rotate(X, NUMBERS), expected)
    rounded = rotate(X.bfloat16(), NUMBERS.cfloat())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.double(), expected, atol=0.03, rtol=0.03)


def test_a_rotations_gradients_equal_finite_differences():
    assert torch.autograd.gradcheck(lambda x: rotate(x, NUMBERS), (X,))
