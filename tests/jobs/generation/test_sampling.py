"""Sampling, compared with the exact distribution."""

import math
from fractions import Fraction

import pytest
import torch

from jobs.generation.sampling import Sampler, Sampling, candidates, choose, likeliest, nucleus, penalize

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


def likeliest_exactly(logits, seen, penalty):
    """Return the likeliest token after the penalty, in numbers without rounding."""
    exact = [Fraction(logit) for logit in logits.tolist()]
    changed = [logit / penalty if logit > 0 else logit * penalty for logit in exact]
    return max(range(len(exact)), key=lambda token: changed[token] if seen[token] else exact[token])


EXTREME = [5e-324, 1e-320, 1e-300, 1e-30, 1e-9]


@pytest.mark.parametrize("temperature", [*EXTREME, 0])
@pytest.mark.parametrize("penalty", [1.0, 5e-324, 1e-300, 1e-9, 1e300, 1.7e308])
@pytest.mark.parametrize(("top_k", "top_p"), [(None, None), (3, None), (10_000, 1e-300), (None, 5e-324)])
def test_a_temperature_near_0_is_greedy_at_any_penalty(temperature, penalty, top_k, top_p):
    logits = torch.tensor([[1.0, -0.5, 0.3, 2.0, 0.0, -3.0, 1.9], [3.4e38, 1e-45, -1e-45, 0.0, -3.4e38, 1.0, 2.0]])
    seen = torch.tensor([[True, True, False, False, True, False, True], [False, True, True, True, True, False, True]])
    exact = [likeliest_exactly(row, is_seen, Fraction(penalty)) for row, is_seen in zip(logits, seen, strict=True)]
    sampling = Sampling(temperature=temperature, repetition_penalty=penalty, top_k=top_k, top_p=top_p)
    sampler = Sampler(sampling, [(0,), (1,)])
    assert [sampler.draw(logits, seen).tolist() for _ in range(20)] == [exact] * 20


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(repetition_penalty=1e-320),
        Sampling(repetition_penalty=1.7e308, top_p=0.9),
        Sampling(temperature=1.7e308, min_p=1e-300),
        Sampling(temperature=1e-6, repetition_penalty=1e-320, top_k=4, min_p=0.5),
        Sampling(top_p=5e-324, top_k=10_000),
        Sampling(min_p=5e-324, temperature=1e-6),
    ],
)
def test_no_setting_makes_an_impossible_distribution(sampling):
    seen = torch.tensor([[False, True, True, False, False, True, False]])
    logits = (
        LOGITS[None] if sampling.repetition_penalty == 1 else penalize(LOGITS[None], seen, sampling.repetition_penalty)
    )
    tokens, probabilities = candidates(logits, sampling)
    assert torch.isfinite(probabilities).all()
    assert probabilities.sum().item() == pytest.approx(1)
    best = logits.argmax().item() if tokens is None else tokens[0].tolist().index(logits.argmax().item())
    assert probabilities[0, best] == probabilities.max()


def test_a_token_without_probability_is_never_chosen():
    distribution = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64)
    uniforms = torch.tensor([0.0, 0.25, 1 - 2**-53], dtype=torch.float64)
    assert choose(distribution.expand(3, -1), uniforms).tolist() == [1, 3, 3]


TIES = [
    Sampling(temperature=0),
    Sampling(),
    Sampling(top_k=9),
    Sampling(top_k=50),
    Sampling(top_p=0.6),
    Sampling(min_p=1.0),
    Sampling(temperature=0.5, top_k=21, top_p=0.8, min_p=0.01),
    Sampling(repetition_penalty=1.3, top_k=9),
]


@pytest.mark.parametrize("sampling", TIES, ids=str)
def test_the_order_of_nearly_equal_logits_does_not_matter(sampling):
    """Logits come in pairs that rounding orders at random, as it does in another batch."""
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(500, 64, generator=generator).repeat_interleave(2, dim=1)
    first, second = (logits + 3e-6 * torch.randn(logits.shape, generator=generator) for _ in range(2))
    assert (first.argsort(dim=1) != second.argsort(dim=1)).any(dim=1).all()
    seen = torch.rand(logits.shape, generator=generator) < 0.1
    keys = [(row,) for row in range(len(logits))]
    one, other = Sampler(sampling, keys), Sampler(sampling, keys)
    differing = sum((one.draw(first, seen) != other.draw(second, seen)).sum().item() for _ in range(10))
    assert differing <= 5  # of 5,000; half of them when candidates are ordered by their logits


def test_equal_logits_at_the_edge_are_taken_from_the_first_token_on():
    logits = torch.tensor([[0.0, 2.0, 1.0, 1.0 + 5e-5, 1.0 - 5e-5, 1.0, -4.0]])
    tokens, probabilities = candidates(logits, Sampling(top_k=3))
    assert tokens[0, probabilities[0] > 0].tolist() == [1, 2, 3]
    distribution = logits.double().softmax(-1)
    assert nucleus(logits, distribution, 0.55).tolist() == [[False, True, True, True, False, False, False]]
    many = torch.zeros(2, 500)
    tokens, probabilities = candidates(many, Sampling(top_k=20))
    assert tokens[0, probabilities[0] > 0].tolist() == list(range(20))
