"""Sampling, compared with the exact distribution."""

import math

import pytest
import torch

from jobs.generation.sampling import Sampler, Sampling, candidates, choose, likeliest, penalize

LOGITS = torch.tensor([1.0, -0.5, 0.3, 2.0, 0.0, -3.0, 1.9])


def p_value(counts, expected):
    """Return the p-value of Pearson's chi-square test, without the tokens of probability 0."""
    possible = expected > 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    return torch.special.gammaincc(freedom / 2, statistic / 2).item()


def draw(sampling, num_draws, logits=LOGITS):
    generator = torch.Generator().manual_seed(5)
    tokens, probabilities = candidates(logits[None], sampling)
    uniforms = torch.rand(num_draws, dtype=torch.float64, generator=generator)
    chosen = choose(probabilities.expand(num_draws, -1), uniforms)
    drawn = chosen if tokens is None else tokens[0, chosen]
    return torch.bincount(drawn, minlength=len(logits)).double()


def exact(sampling):
    """Return the distribution, computed token by token with Python's floats."""
    weights = [math.exp(logit / sampling.temperature) for logit in LOGITS.tolist()]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])[: sampling.top_k]
    total, kept, before = sum(weights[token] for token in order), [], 0.0
    for token in order:
        if before / total < (sampling.top_p or 1):
            kept.append(token)
        before += weights[token]
    kept = [token for token in kept if weights[token] >= (sampling.min_p or 0) * weights[order[0]]]
    total = sum(weights[token] for token in kept)
    return torch.tensor([weights[token] / total if token in kept else 0.0 for token in range(len(weights))])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [None, 1, 3, 50])
@pytest.mark.parametrize(("top_p", "min_p"), [(None, None), (0.85, None), (None, 0.15), (0.9, 0.1), (1e-9, 1.0)])
def test_draws_follow_the_exact_distribution(temperature, top_k, top_p, min_p):
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    expected = 100_000 * exact(sampling).double()
    counts = draw(sampling, 100_000)
    assert counts[expected == 0].sum() == 0
    if (expected > 0).sum() > 1:
        assert p_value(counts, expected) > 1e-4


def test_a_penalty_lowers_positive_and_negative_logits():
    seen = torch.tensor([[True, True, False, False, False, False, False]])
    penalized = penalize(LOGITS[None], seen, 2.0)[0]
    assert penalized.tolist() == pytest.approx([0.5, -1.0, *LOGITS[2:].tolist()])
    assert Sampler(Sampling(temperature=0, repetition_penalty=2.0), [()]).draw(LOGITS[None], seen).tolist() == [3]


def test_the_test_rejects_a_temperature_on_probabilities():
    wrong = LOGITS.double().softmax(0) / 0.5
    expected = 100_000 * wrong.exp() / wrong.exp().sum()
    assert p_value(draw(Sampling(temperature=0.5), 100_000), expected) < 1e-12


def test_equal_logits_are_drawn_equally_often():
    logits = torch.zeros(1, 8)
    sampler = Sampler(Sampling(), [(1, 2, 3)])
    counts = torch.bincount(torch.cat([sampler.draw(logits) for _ in range(8000)]), minlength=8).double()
    assert p_value(counts, torch.full((8,), 1000.0)) > 1e-4


def test_a_sequence_does_not_depend_on_its_batch():
    logits = LOGITS.expand(3, -1)
    together = Sampler(Sampling(), [(0, 0, index) for index in range(3)])
    separate = Sampler(Sampling(), [(0, 0, 2)])
    drawn = [together.draw(logits) for _ in range(50)]
    assert [row[2].item() for row in drawn] == [separate.draw(logits[:1]).item() for _ in range(50)]
    assert len({tuple(row.tolist()) for row in torch.stack(drawn).T}) == 3


def test_temperature_0_selects_the_likeliest_token():
    assert Sampler(Sampling(temperature=0, top_k=50), [(0,)]).draw(LOGITS[None]).tolist() == [3]


def test_of_equal_logits_the_first_is_selected():
    logits = torch.tensor([[0.0, 2.0, -1.0, 2.0], [-3.0, -4.0, -5.0, -3.5]])
    assert likeliest(logits).tolist() == logits.argmax(dim=-1).tolist() == [1, 0]
    assert likeliest(logits).dtype == torch.int64
