"""From logits to the next token: penalties and temperature on the logits, then a choice of candidates, then a draw.

A sequence draws with its own random numbers, which its seed, prompt and sample alone decide: so it comes out the same
whatever it is batched with and wherever it is made.

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
    """What may be drawn, in the order in which it is applied; the defaults leave the model's distribution alone."""

    repetition_penalty: float = 1.0
    """CTRL's (Keskar et al. 2019, arXiv:1909.05858): divides the positive logits of tokens that were seen."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int | None = None
    """The k likeliest tokens (Fan et al. 2018, arXiv:1805.04833)."""
    top_p: float | None = None
    """The nucleus: the fewest likeliest tokens with this probability (Holtzman et al. 2019, arXiv:1904.09751)."""
    min_p: float | None = None
    """Tokens of this share of the likeliest one's probability (Nguyen et al. 2024, arXiv:2407.01082)."""


class Sampler:
    """Draws the next tokens of several sequences, each with random numbers of its own."""

    def __init__(self, sampling: Sampling, keys: Sequence[tuple[int, ...]]) -> None:
        """`keys` seed the sequences."""
        self._sampling = sampling
        self._generators = [np.random.Philox(np.random.SeedSequence(key)) for key in keys]

    def draw(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Next tokens (B), int64, for logits (B, V); `seen` (B, V), boolean, tells what to penalize."""
        if seen is not None:
            logits = penalize(logits, seen, self._sampling.repetition_penalty)
        if self._sampling.temperature == 0:
            return likeliest(logits)
        tokens, probabilities = candidates(logits, self._sampling)
        uniforms = torch.tensor([_uniform(generator) for generator in self._generators], dtype=torch.float64)
        chosen = choose(probabilities, uniforms.to(logits.device))
        return chosen if tokens is None else tokens.gather(-1, chosen[:, None]).squeeze(-1)


def likeliest(logits: Tensor) -> Tensor:
    """The token (B), int64, with the largest of `logits` (B, V); the first of equal ones."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1)
    return torch.from_numpy(logits.numpy().argmax(axis=-1))  # takes a tenth of the time that torch's own takes


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make the tokens `seen` (B, V) less likely, for a penalty above 1."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """The tokens (B, C) that may be drawn, None for the whole vocabulary, and their probabilities (B, C), float64.

    Candidates are in falling order; those that top-p or min-p leave out have probability 0. Only what top-k keeps is
    ever turned into probabilities.
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
    """Which of `probabilities` (B, C), in falling order, are needed to reach `top_p`; the first always is."""
    before = probabilities.cumsum(dim=-1) - probabilities
    needed = before < top_p
    needed[..., 0] = True
    return needed


def choose(distribution: Tensor, uniforms: Tensor) -> Tensor:
    """The index (B) in whose part of the cumulated `distribution` (B, C) each of `uniforms` (B) in [0, 1) falls."""
    cumulated = distribution.cumsum(dim=-1)
    points = uniforms[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, points, right=True).squeeze(-1).clamp(max=distribution.shape[-1] - 1)


def _uniform(generator: np.random.Philox) -> float:
    """A number in [0, 1) of 53 random bits; numpy promises that the raw bits never change."""
    return float(generator.random_raw() >> 11) * 2.0**-53
