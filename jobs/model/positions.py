"""Positions that are added to embeddings: fixed sinusoids, or vectors that are learned.

Rotary positions, which `jobs.model.llama` uses, turn queries and keys instead; they are there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WAVELENGTH_BASE = 10_000.0


def sinusoidal_positions(num_positions: int, size: int, start: int = 0) -> Tensor:
    """Fixed vectors of positions (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

    Feature i of position p is ``sin(p / 10000^(e / size))`` for even i and the cosine of the same angle for odd i,
    where ``e = 2 * (i // 2)``: neighbours share a wavelength, so a shift of position is a rotation of each pair.

    Args:
        num_positions: How many positions.
        size: Features of each.
        start: The first position.

    Returns:
        Vectors of shape (num_positions, size), float32.
    """
    features = torch.arange(size)
    exponents = (2 * (features // 2)).double() / size
    positions = torch.arange(start, start + num_positions, dtype=torch.float64)
    angles = torch.outer(positions, _WAVELENGTH_BASE**-exponents)
    return torch.where(features % 2 == 0, angles.sin(), angles.cos()).float()


class SinusoidalPositions(nn.Module):
    """Adds fixed sinusoids; has no weights, and a state dictionary does not hold them."""

    vectors: Tensor

    def __init__(self, num_positions: int, size: int) -> None:
        super().__init__()
        self.register_buffer("vectors", sinusoidal_positions(num_positions, size), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """`x` (B, T, D), whose first position is `start`, with positions added."""
        return x + _slice(self.vectors, start, x.shape[1]).to(x.dtype)


class LearnedPositions(nn.Module):
    """Adds one trained vector for each position, as GPT-2 does."""

    def __init__(self, num_positions: int, size: int, std: float = 0.02, generator: torch.Generator | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_positions, size).normal_(std=std, generator=generator))

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """`x` (B, T, D), whose first position is `start`, with positions added."""
        return x + _slice(self.weight, start, x.shape[1])


def _slice(vectors: Tensor, start: int, length: int) -> Tensor:
    """The vectors of `length` positions; slicing alone would silently give fewer, or broadcast a single one."""
    if start < 0 or start + length > len(vectors):
        raise ValueError(f"positions {start} to {start + length} are asked for, there are {len(vectors)}")
    return vectors[start : start + length]
