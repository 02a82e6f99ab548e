"""Parts of the decoder whose gradients are written out, since autograd's go through memory several times as often.

Within autocast, their results have the type that the matrix products behind them want.
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
        """The shape of `x` stays."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        normed: Tensor = _RMSNorm.apply(x, self.weight, self.eps, dtype)  # type: ignore[no-untyped-call]  # torch's
        return normed


def interleaved(weight: Tensor, head_size: int) -> Tensor:
    """Rows of queries or keys (H E, D) with feature i beside feature i + E/2 of its head: a pair for rotary positions.

    Queries and keys in the same order have the same products.
    """
    return weight.view(-1, 2, head_size // 2, weight.shape[1]).transpose(1, 2).flatten(0, 2)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of neighbouring features of `x` (B, T, H, E) by `angles` (T, H E/2), complex numbers of length 1."""
    rotated: Tensor = _Rotation.apply(x, angles)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return rotated


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
        return _turn(x, angles)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (angles,) = ctx.saved_tensors
        return _turn(outer[0], angles.conj().resolve_conj()), None


def _turn(x: Tensor, angles: Tensor) -> Tensor:
    numbers = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    pairs = torch.view_as_complex(numbers.flatten(2).view(*x.shape[:2], -1, 2))
    return torch.view_as_real(pairs * angles).view(x.shape).to(x.dtype)
