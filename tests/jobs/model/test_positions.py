"""Positions that are added to embeddings."""

import math

import pytest
import torch

from jobs.model.positions import LearnedPositions, SinusoidalPositions, sinusoidal_positions


@pytest.mark.parametrize("size", [1, 2, 6, 7, 64])
def test_sinusoids_are_the_papers(size):
    vectors = sinusoidal_positions(50, size)
    assert vectors.shape == (50, size)
    assert vectors.dtype == torch.float32
    for position in (0, 1, 17, 49):
        for i in range(size):
            angle = position / 10000 ** (2 * (i // 2) / size)  # a pair shares its wavelength
            expected = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            assert vectors[position, i].item() == pytest.approx(expected, abs=1e-6)


def test_a_shift_turns_every_pair_by_the_same_angle():
    vectors = sinusoidal_positions(100, 8).double()
    for pair in range(4):
        sines, cosines = vectors[:, 2 * pair], vectors[:, 2 * pair + 1]
        angle = 5 / 10000 ** (2 * pair / 8)
        turned = sines[:-5] * math.cos(angle) + cosines[:-5] * math.sin(angle)
        assert turned == pytest.approx(sines[5:], abs=1e-6)


def test_they_go_on_where_a_sequence_goes_on():
    whole = sinusoidal_positions(30, 6)
    assert torch.equal(sinusoidal_positions(10, 6, start=20), whole[20:])
    for module in SinusoidalPositions(30, 6), LearnedPositions(30, 6):
        x = torch.randn(2, 12, 6)
        parts = torch.cat((module(x[:, :5]), module(x[:, 5:], start=5)), dim=1)
        assert torch.equal(parts, module(x))


def test_sinusoids_are_not_trained_and_learned_positions_are():
    assert not SinusoidalPositions(4, 6).state_dict()
    learned = LearnedPositions(4, 6, generator=torch.Generator().manual_seed(1))
    learned(torch.zeros(3, 2, 6)).sum().backward()
    assert torch.equal(learned.weight.grad, torch.tensor([3.0, 3.0, 0.0, 0.0])[:, None].expand(4, 6))
    assert list(learned.state_dict()) == ["weight"]


@pytest.mark.parametrize("module", [SinusoidalPositions(4, 6), LearnedPositions(4, 6)])
@pytest.mark.parametrize(("start", "length"), [(0, 5), (4, 1), (-1, 2)])
def test_too_many_positions_are_refused(module, start, length):
    with pytest.raises(ValueError, match="there are 4"):
        module(torch.zeros(1, length, 6), start)
