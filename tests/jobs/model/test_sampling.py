"""Draws against the exact distribution."""

import pytest
import torch

from jobs.model.sampling import Sampler, choose, probabilities

LOGITS = torch.tensor([1.0, -0.5, 0.3, 2.0, 0.0, -3.0, 1.9])


def p_value(counts, expected):
    """Of Pearson's chi-square statistic; tokens that cannot be drawn are left out."""
    possible = expected > 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    return torch.special.gammaincc(freedom / 2, statistic / 2).item()


def draw(temperature, top_k, num_draws, logits=LOGITS):
    generator = torch.Generator().manual_seed(5)
    distribution = probabilities(logits[None], temperature, top_k).expand(num_draws, -1)
    tokens = choose(distribution, torch.rand(num_draws, dtype=torch.float64, generator=generator))
    return torch.bincount(tokens, minlength=len(logits)).double()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [None, 1, 3, 50])
def test_draws_follow_temperature_and_top_k(temperature, top_k):
    scaled = LOGITS.double() / temperature
    if top_k is not None and top_k < len(LOGITS):
        scaled[scaled < scaled.sort(descending=True).values[top_k - 1]] = -torch.inf
    expected = 100_000 * scaled.exp() / scaled.exp().sum()
    counts = draw(temperature, top_k, 100_000)
    assert counts[expected == 0].sum() == 0
    if top_k != 1:
        assert p_value(counts, expected) > 1e-4


def test_the_test_would_notice_a_temperature_on_probabilities():
    wrong = LOGITS.double().softmax(0) / 0.5
    expected = 100_000 * wrong.exp() / wrong.exp().sum()
    assert p_value(draw(0.5, None, 100_000), expected) < 1e-12


def test_the_sampler_draws_uniformly_from_its_own_numbers():
    logits = torch.zeros(1, 8)
    sampler = Sampler(1.0, None, [(1, 2, 3)])
    counts = torch.bincount(torch.cat([sampler.draw(logits) for _ in range(8000)]), minlength=8).double()
    assert p_value(counts, torch.full((8,), 1000.0)) > 1e-4


def test_a_sequence_does_not_depend_on_its_neighbours():
    logits = LOGITS.expand(3, -1)
    together = Sampler(1.0, None, [(0, 0, index) for index in range(3)])
    alone = Sampler(1.0, None, [(0, 0, 2)])
    drawn = [together.draw(logits) for _ in range(50)]
    assert [row[2].item() for row in drawn] == [alone.draw(logits[:1]).item() for _ in range(50)]
    assert len({tuple(row.tolist()) for row in torch.stack(drawn).T}) == 3


def test_temperature_zero_takes_the_likeliest():
    assert Sampler(0, 50, [(0,)]).draw(LOGITS[None]).tolist() == [3]
