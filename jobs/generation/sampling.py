"""Sampling of the next token: penalties and temperature change the logits, then one of the candidates is drawn.

Each sequence has its own random numbers. Extreme settings are safe: a temperature near 0 selects the likeliest token,
and no setting overflows.

The logits of a sequence differ by rounding (1e-5 in float32) if the sequence is in another batch. So no choice depends
on which of two nearly equal logits is larger: logits that differ by less than `TIE` count as equal, the lower token id
comes first, and the cumulative distribution follows the order of the token ids. Still, a sequence may get another token
in another batch. The probability is about the rounding divided by the temperature: `docs/decisions/generation.md` has
measurements.

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
"""Logits that differ by less than this count as equal. It is ten times the rounding of float32, and changes a
probability by 0.01%."""
_GREEDY = TIE / 100
"""Below this temperature, the likeliest token is taken. Of two logits that do not count as equal, the larger would have
more than exp(100) times the probability of the other."""
_SPARE = 8
"""Number of logits that top-k reads beyond the first k, to find those that equal the k-th one."""
_MOST_PENALTY = 2.0**512
"""The largest repetition penalty. A float32 logit multiplied or divided by it is neither infinite nor 0 in float64."""


@dataclass(frozen=True)
class Sampling:
    """The changes to the model's distribution, in the order in which they are applied. The defaults change nothing."""

    repetition_penalty: float = 1.0
    """If above 1, make tokens that the sequence contains less likely (Keskar et al. 2019, arXiv:1909.05858)."""
    temperature: float = 1.0
    """Divide the logits by this number. 0 selects the likeliest token."""
    top_k: int | None = None
    """Keep the k likeliest tokens (Fan et al. 2018, arXiv:1805.04833)."""
    top_p: float | None = None
    """Keep the fewest tokens that together have this probability (Holtzman et al. 2019, arXiv:1904.09751)."""
    min_p: float | None = None
    """Keep tokens with this share of the highest probability or more (Nguyen et al. 2024, arXiv:2407.01082)."""


class Sampler:
    """Draws the next token of each sequence in a batch. Each of `keys` seeds the random numbers of one sequence."""

    def __init__(self, sampling: Sampling, keys: Sequence[tuple[int, ...]]) -> None:
        self.sampling = sampling
        self._generators = [np.random.Philox(np.random.SeedSequence(key)) for key in keys]

    @classmethod
    def joined(cls, samplers: Sequence[Sampler]) -> Sampler:
        """Return one sampler for the sequences of all `samplers`, which must have equal settings.

        Each sequence continues its own random numbers.
        """
        joined = cls(samplers[0].sampling, ())
        joined._generators = [generator for sampler in samplers for generator in sampler._generators]
        return joined

    def draw(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Draw the next tokens (B), int64, from `logits` (B, V).

        `seen` (B, V), boolean, marks the tokens that each sequence contains. Only the repetition penalty needs it.
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
    """Return the ids (B), int64, of the tokens with the largest `logits` (B, V).

    Among logits that count as equal (`TIE`), the lowest id wins.
    """
    if logits.device.type != "cpu":
        return (logits >= logits.amax(dim=-1, keepdim=True) - TIE).int().argmax(dim=-1)
    values = logits.numpy()  # takes a tenth of the time of torch's argmax
    return torch.from_numpy((values >= values.max(axis=-1, keepdims=True) - TIE).argmax(axis=-1))


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Return `logits` in float64. A `penalty` above 1 lowers the logits of the tokens that `seen` (B, V) marks."""
    penalty = min(max(penalty, 1 / _MOST_PENALTY), _MOST_PENALTY)
    logits = logits.double()
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """Return the tokens (B, C) to draw from, in ascending order, and their probabilities (B, C), float64.

    If the tokens are the whole vocabulary, return None for them. Tokens that top-k, top-p or min-p exclude have
    probability 0.
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
    """Return the logits and the ids (B, C) of the `k` likeliest tokens, in ascending order of the ids.

    C is larger than `k` if further logits equal the k-th one. Each row then has `k` of the logits, and minus infinity
    for the other tokens.
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
    """Return a boolean mask (B, C) of the likeliest tokens whose probabilities together reach `top_p`.

    The mask has as few tokens as possible, but at least one. A sum that is below `top_p` only by rounding also counts.
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
    """Draw one index (B) from each row of `distribution` (B, C), by the random numbers `uniforms` (B) in [0, 1).

    An index with probability 0 is never drawn: a uniform number is a multiple of 2^-53 below 1, so its product with a
    row's sum is less than this sum.
    """
    cumulated = distribution.cumsum(dim=-1)
    points = uniforms[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, points, right=True).squeeze(-1)


def _uniform(generator: np.random.Philox) -> float:
    """Return a random number in [0, 1), made of 53 raw bits. numpy guarantees that raw bits never change."""
    return float(generator.random_raw() >> 11) * 2.0**-53
