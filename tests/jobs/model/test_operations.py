"""Written-out gradients against finite differences, results against torch's."""

import torch

from jobs.model.operations import RMSNorm, rotate

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=GENERATOR, requires_grad=True)
ANGLES = torch.randn(4, 3, dtype=torch.float64, generator=GENERATOR)


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


def test_a_rotation_turns_pairs_as_complex_numbers_do():
    turned = torch.view_as_complex(torch.stack(X.chunk(2, -1), -1)) * torch.polar(torch.ones_like(ANGLES), ANGLES)
    torch.testing.assert_close(rotate(X, ANGLES.cos(), ANGLES.sin()), torch.cat((turned.real, turned.imag), -1))


def test_a_rotations_gradients_equal_finite_differences():
    assert torch.autograd.gradcheck(lambda x: rotate(x, ANGLES.cos(), ANGLES.sin()), (X,))
