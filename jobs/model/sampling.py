"""From logits to the next token: temperature on the logits, then the k likeliest, then a draw.

A sequence draws with its own random numbers, which its seed, prompt and sample alone decide: so it comes out the same
whatever it is batched with and wherever it is made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Sampler:
    """Draws the next tokens of several sequences, each with random numbers of its own."""

    def __init__(self, temperature: float, top_k: int | None, keys: Sequence[tuple[int, ...]]) -> None:
        """`keys` seed the sequences; temperature 0 takes the likeliest token."""
        self._temperature = temperature
        self._top_k = top_k
        self._generators = [np.random.Philox(np.random.SeedSequence(key)) for key in keys]

    def draw(self, logits: Tensor) -> Tensor:
        """Next tokens (B), int64, for logits (B, V)."""
        if self._temperature == 0:
            return logits.argmax(dim=-1)
        uniforms = [_uniform(generator) for generator in self._generators]
        return choose(probabilities(logits, self._temperature, self._top_k), torch.tensor(uniforms))


def probabilities(logits: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """The distribution (B, V), float64, that is drawn from; all but the `top_k` likeliest have probability 0."""
    logits = logits.double() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        kept, indices = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, indices, kept)
    return logits.softmax(dim=-1)


def choose(distribution: Tensor, uniforms: Tensor) -> Tensor:
    """The token (B) in whose part of the cumulated `distribution` (B, V) each of `uniforms` (B) in [0, 1) falls."""
    cumulated = distribution.cumsum(dim=-1)
    points = uniforms.to(cumulated)[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, points, right=True).squeeze(-1).clamp(max=distribution.shape[-1] - 1)


def _uniform(generator: np.random.Philox) -> float:
    """A number in [0, 1) of 53 random bits; numpy promises that the raw bits never change."""
    return float(generator.random_raw() >> 11) * 2.0**-53
