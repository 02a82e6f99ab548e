"""Sampling of the next token: penalties and temperature change the logits, then candidates are selected, then drawn.

Each sequence has its own random numbers, so it does not depend on the other sequences of its batch, or on the task that
generates it.

Shapes in comments: B sequences, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """The changes to the model's distribution, in the order in which they apply; the defaults change nothing."""

    repetition_penalty: float = 1.0
    """Make tokens less likely that the sequence contains, if above 1 (Keskar et al. 2019, arXiv:1909.05858)."""
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
        self._sampling = sampling
        self._generators = [np.random.Philox(np.random.SeedSequence(key)) for key in keys]

    def draw(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the next tokens (B), int64, for `logits` (B, V).

        The repetition penalty needs `seen` (B, V), boolean: the tokens that each sequence contains.
        """
        if seen is not None:
            logits = penalize(logits, seen, self._sampling.repetition_penalty)
        if self._sampling.temperature == 0:
            return likeliest(logits)
        tokens, probabilities = candidates(logits, self._sampling)
        uniforms = torch.tensor([_uniform(generator) for generator in self._generators], dtype=torch.float64)
        chosen = choose(probabilities, uniforms.to(logits.device))
        return chosen if tokens is None else tokens.gather(-1, chosen[:, None]).squeeze(-1)


def likeliest(logits: Tensor) -> Tensor:
    """Return the token (B), int64, with the largest of `logits` (B, V), the first of equal ones."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1)
    return torch.from_numpy(logits.numpy().argmax(axis=-1))  # takes a tenth of the time of torch's argmax


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Return `logits` with those of the tokens `seen` (B, V) lowered, if `penalty` is above 1."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """Return the tokens (B, C) to draw from, and their probabilities (B, C), float64.

    The tokens are None for the whole vocabulary, else in descending order of probability. Tokens that top-p or min-p
    exclude have probability 0. Top-k comes first, so the softmax is over the k logits that it keeps.
    """
    tokens: Tensor | None = None
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        logits, tokens = logits.topk(sampling.top_k, dim=-1)
    elif sampling.top_p is not None:
        logits, tokens = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = (logits.double() / sampling.temperature).softmax(dim=-1)
    if sampling.top_p is not None:
        probabilities = probabilities * nucleus(probabilities, sampling.top_p)
    if sampling.min_p is not None:
        probabilities = probabilities * (probabilities >= sampling.min_p * probabilities.amax(dim=-1, keepdim=True))
    return tokens, probabilities / probabilities.sum(dim=-1, keepdim=True)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Return which of the descending `probabilities` (B, C) are needed to reach `top_p`; the first always is."""
    before = probabilities.cumsum(dim=-1) - probabilities
    needed = before < top_p
    needed[..., 0] = True
    return needed


def choose(distribution: Tensor, uniforms: Tensor) -> Tensor:
    """Return the indices (B) that `uniforms` (B) in [0, 1) select from the cumulated `distribution` (B, C)."""
    cumulated = distribution.cumsum(dim=-1)
    points = uniforms[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, points, right=True).squeeze(-1).clamp(max=distribution.shape[-1] - 1)


def _uniform(generator: np.random.Philox) -> float:
    """Return a number in [0, 1) from 53 random bits; numpy guarantees that the raw bits never change."""
    return float(generator.random_raw() >> 11) * 2.0**-53
