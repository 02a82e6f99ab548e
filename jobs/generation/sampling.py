"""Sampling of the next token: penalties and temperature change the logits, then one of the candidates is drawn.

Each sequence has its own random numbers, and the arithmetic has the right limit at each extreme of a setting: a
temperature towards 0 is greedy, and no setting overflows.

The logits of a sequence differ by rounding (1e-5 in float32) if the sequence is in another batch. So no choice depends
on which of two nearly equal logits is larger: logits that differ by less than `TIE` count as equal, the lower token id
comes first, and the distribution is cumulated in the order of the token ids. The remaining probability that a token
differs is about the rounding divided by the temperature: `docs/decisions/generation.md` has measurements.

Shapes in comments: B sequences, V vocabulary, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TIE = 1e-4
"""Logits that differ by less count as equal: ten times the rounding of float32, and 0.01% of a probability."""
_GREEDY = TIE / 100
"""Below this temperature, probabilities of unequal logits differ by a factor of more than exp(100)."""
_SPARE = 8
"""Number of logits that top-k reads beyond the first k, to find those that equal the k-th one."""
_MOST_PENALTY = 2.0**512
"""A logit of float32 times this number, or divided by it, is neither infinite nor 0 in float64."""


@dataclass(frozen=True)
class Sampling:
    """The changes to the model's distribution, in the order in which they apply; the defaults change nothing."""

    repetition_penalty: float = 1.0
    """If above 1, make tokens that the sequence contains less likely (Keskar et al. 2019, arXiv:1909.05858)."""
    temperature: float = 1.0
    """Divide the logits; 0 selects the likeliest token."""
    top_k: int | None = None
    """Keep the k likeliest tokens (Fan et al. 2018, arXiv:1805.04833)."""
    top_p: float | None = None
    """Keep the fewest tokens that together have this probability (Holtzman et al. 2019, arXiv:1904.09751)."""
    min_p: float | None = None
    """Keep tokens with this share of the highest probability or more (Nguyen et al. 2024, arXiv:2407.01082)."""


class Sampler:
    """A sampler of the next tokens of a batch of sequences. One of `keys` seeds the random numbers of each sequence."""

    def __init__(self, sampling: Sampling, keys: Sequence[tuple[int, ...]]) -> None:
        self.sampling = sampling
        self._generators = [np.random.Philox(np.random.SeedSequence(key)) for key in keys]

    @classmethod
    def joined(cls, samplers: Sequence[Sampler]) -> Sampler:
        """Return one sampler for the sequences of all `samplers`, which have equal settings.

        The random numbers of each sequence continue.
        """
        joined = cls(samplers[0].sampling, ())
        joined._generators = [generator for sampler in samplers for generator in sampler._generators]
        return joined

    def draw(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the next tokens (B), int64, for `logits` (B, V).

        The repetition penalty needs `seen` (B, V), boolean: the tokens that each sequence contains.
        """
        sampling = self.sampling
        if seen is not None:
            logits = penalize(logits, seen, sampling.repetition_penalty)
        if sampling.temperature < _GREEDY:
            return likeliest(logits)
        tokens, probabilities = candidates(logits, sampling)
        uniforms = torch.tensor([_uniform(generator) for generator in self._generators], dtype=torch.float64)
        chosen = choose(probabilities, uniforms.to(logits.device))
        return chosen if tokens is None else tokens.gather(-1, chosen[:, None]).squeeze(-1)


def likeliest(logits: Tensor) -> Tensor:
    """Return the token (B), int64, with the largest of `logits` (B, V), the first of equal ones."""
    if logits.device.type != "cpu":
        return (logits >= logits.amax(dim=-1, keepdim=True) - TIE).int().argmax(dim=-1)
    values = logits.numpy()  # takes a tenth of the time of torch's argmax
    return torch.from_numpy((values >= values.max(axis=-1, keepdims=True) - TIE).argmax(axis=-1))


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Return `logits` in float64, with those of the tokens `seen` (B, V) lowered if `penalty` is above 1."""
    penalty = min(max(penalty, 1 / _MOST_PENALTY), _MOST_PENALTY)
    logits = logits.double()
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """Return the tokens (B, C) to draw from, in ascending order, and their probabilities (B, C), float64.

    The tokens are None if they are the whole vocabulary. Tokens that top-k, top-p or min-p exclude have probability 0.
    Top-k comes first, so the softmax is over the k logits that it keeps.
    """
    tokens: Tensor | None = None
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        logits, tokens = likeliest_k(logits, sampling.top_k)
    probabilities = (logits.double() / sampling.temperature).softmax(dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        probabilities = probabilities * nucleus(logits, probabilities, sampling.top_p)
    if sampling.min_p:
        least = logits.double().amax(dim=-1, keepdim=True) + sampling.temperature * math.log(sampling.min_p)
        probabilities = probabilities * (logits >= least - TIE)
    return tokens, probabilities / probabilities.sum(dim=-1, keepdim=True)


def likeliest_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the logits and the ids (B, C) of the likeliest tokens, in ascending order of the ids.

    C is k, or more if further logits equal the k-th one. The logits of all but k tokens are minus infinity.
    """
    num_read = min(k + _SPARE, logits.shape[-1])
    values, tokens = logits.topk(num_read, dim=-1)
    least = values[:, k - 1 : k]
    num_tied = int((values >= least - TIE).sum(dim=-1).max())  # k or more
    if num_tied == num_read:  # perhaps further logits equal the k-th one
        num_tied = int((logits >= least - TIE).sum(dim=-1).max())
        values, tokens = logits.topk(num_tied, dim=-1)
    tokens, order = tokens[:, :num_tied].sort(dim=-1)
    values = values.gather(-1, order)
    if num_tied > k:
        above = values > least + TIE
        tied = (values >= least - TIE) & ~above
        kept = above | (tied & (above.sum(-1, keepdim=True) + tied.cumsum(-1) <= k))
        values = values.masked_fill(~kept, -math.inf)
    return values, tokens


def nucleus(logits: Tensor, probabilities: Tensor, top_p: float) -> Tensor:
    """Return which tokens (B, C), boolean, are needed to reach the probability `top_p`, except for rounding.

    At least one token is always needed.
    """
    enough = top_p * (1 - TIE)
    values, descending = _descending(logits), _descending(probabilities)  # a larger logit is a larger probability
    num_needed = (descending.cumsum(dim=-1) - descending < enough).sum(dim=-1, keepdim=True).clamp(min=1)
    least = values.gather(-1, num_needed - 1)
    reached = logits >= least - TIE
    if torch.equal(reached.sum(dim=-1, keepdim=True), num_needed):
        return reached
    above = logits > least + TIE
    ties = probabilities * (reached & ~above)
    before = (probabilities * above).sum(-1, keepdim=True) + ties.cumsum(-1) - ties
    return above | (reached & ((before < enough) | (before == 0)))


def _descending(values: Tensor) -> Tensor:
    """Return `values` (B, C) sorted, the largest first."""
    if values.device.type != "cpu":
        return values.sort(dim=-1, descending=True).values
    return torch.from_numpy(-np.sort(-values.numpy(), axis=-1))  # torch's sort also makes indices: 25 times the time


def choose(distribution: Tensor, uniforms: Tensor) -> Tensor:
    """Return the indices (B) that `uniforms` (B) in [0, 1) select from the cumulated `distribution` (B, C).

    No index with probability 0 is selected: a multiple of 2^-53 below 1, times the sum, is less than the sum.
    """
    cumulated = distribution.cumsum(dim=-1)
    points = uniforms[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, points, right=True).squeeze(-1)


def _uniform(generator: np.random.Philox) -> float:
    """Return a number in [0, 1) from 53 random bits; numpy guarantees that the raw bits never change."""
    return float(generator.random_raw() >> 11) * 2.0**-53
