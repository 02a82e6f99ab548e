"""Layers that several models use: RMSNorm, and rotary, sinusoidal and learned positions.

RMSNorm on CPUs and the rotation have handwritten gradients, because autograd's gradients read and write memory several
times as often. Within autocast, the results of both have the type of the matrix products that follow.

Shapes in comments: B sequences, T positions, D embedding size, H heads, E head size, P the largest number of positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` (arXiv:1910.07467) over the last dimension, computed in the type of its input."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__(size, eps=epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` normalized, in the same shape."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        if device != "cpu":
            return super().forward(x).to(dtype)  # a single kernel on GPUs
        normed: Tensor = _RMSNorm.apply(x, self.weight, self.eps, dtype)  # type: ignore[no-untyped-call]  # torch's
        return normed


class RotaryPositions(nn.Module):
    """The angles of rotary positions (arXiv:2104.09864), which rotate pairs of features of queries and keys."""

    cosines_and_sines: Tensor

    def __init__(self, num_positions: int, head_size: int, theta: float) -> None:
        super().__init__()
        exponents = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
        angles = torch.outer(torch.arange(num_positions, dtype=torch.float64), theta**-exponents)
        parts = torch.stack((angles.cos(), angles.sin()), dim=-1)
        self.register_buffer("cosines_and_sines", parts.float(), persistent=False)

    @property
    def angles(self) -> Tensor:
        """Return the angles (P, E/2) as complex numbers of length 1."""
        return torch.view_as_complex(self.cosines_and_sines)

    def forward(self, length: int, num_heads: int) -> Tensor:
        """Return the cosines and sines (T, H E/2, 2) of the first `length` positions, repeated for each head."""
        return self.cosines_and_sines[:length].repeat(1, num_heads, 1)


def interleaved(weight: Tensor, head_size: int) -> Tensor:
    """Reorder the rows of a query or key matrix (H E, D), so that features i and i + E/2 of a head are neighbours."""
    return weight.view(-1, 2, head_size // 2, weight.shape[1]).transpose(1, 2).flatten(0, 2)


def rotate(x: Tensor, cosines_and_sines: Tensor) -> Tensor:
    """Return `x` (B, T, H, E) with each pair of neighbouring features rotated.

    `cosines_and_sines` (T, H * E/2, 2) has the cosine and sine of each pair's angle. The pairs are rotated as complex
    numbers, which is faster. Under `torch.compile`, real numbers are used, because torch does not compile operations on
    complex numbers.
    """
    if torch.compiler.is_compiling():
        return _rotate_real(x, cosines_and_sines)
    rotated: Tensor = _Rotation.apply(x, torch.view_as_complex(cosines_and_sines))  # type: ignore[no-untyped-call]
    return rotated


class SinusoidalPositions(nn.Module):
    """Fixed sinusoids that are added to embeddings. They are not weights and not part of the state dictionary."""

    vectors: Tensor

    def __init__(self, num_positions: int, size: int) -> None:
        super().__init__()
        self.register_buffer("vectors", sinusoidal_positions(num_positions, size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of `x` (B, T, D) and the vectors of the first T positions."""
        return x + self.vectors[: x.shape[1]].to(x.dtype)


class LearnedPositions(nn.Module):
    """One trained vector per position that is added to embeddings, as in GPT-2."""

    def __init__(self, num_positions: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_positions, size))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of `x` (B, T, D) and the vectors of the first T positions."""
        return x + self.weight[: x.shape[1]]


def sinusoidal_positions(num_positions: int, size: int) -> Tensor:
    """Return the position vectors (num_positions, size) of Vaswani et al. 2017 (arXiv:1706.03762, section 3.5).

    Feature i of position p is ``sin(p / 10000^(e / size))`` for even i and the cosine of the same angle for odd i,
    with ``e = 2 * (i // 2)``.
    """
    features = torch.arange(size)
    exponents = (2 * (features // 2)).double() / size
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float64), 10_000.0**-exponents)
    return torch.where(features % 2 == 0, angles.sin(), angles.cos()).float()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        scale = x.square().mean(dim=-1, keepdim=True).add_(epsilon).rsqrt_()
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return (normed * weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None]:
        normed, scale, weight = ctx.saved_tensors
        gradient = outer[0].to(normed.dtype)
        product = gradient * normed
        along = (product @ weight).unsqueeze(-1) / normed.shape[-1]
        of_x = (gradient * weight).addcmul_(normed, along, value=-1).mul_(scale)
        return of_x, product.flatten(0, -2).sum(0), None, None


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, angles: Tensor) -> Tensor:
        ctx.save_for_backward(angles)
        return _rotate(x, angles)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (angles,) = ctx.saved_tensors
        return _rotate(outer[0], angles.conj().resolve_conj()), None


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(_pairs(x)) * angles).view(x.shape).to(x.dtype)


def _rotate_real(x: Tensor, cosines_and_sines: Tensor) -> Tensor:
    even, odd = _pairs(x).unbind(-1)
    cosines, sines = cosines_and_sines.unbind(-1)
    rotated = torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), dim=-1)
    return rotated.view(x.shape).to(x.dtype)


def _pairs(x: Tensor) -> Tensor:
    """Reshape `x` (B, T, H, E) to pairs of features (B, T, H * E/2, 2). Convert 16-bit numbers to float32."""
    numbers = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return numbers.flatten(2).view(*x.shape[:2], -1, 2)
