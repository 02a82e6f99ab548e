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


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn pairs of features, i and i + E/2, of `x` (B, H, T, E) by the angles of cosines and sines (T, E/2)."""
    rotated: Tensor = _Rotation.apply(x, cosines.to(x.dtype), sines.to(x.dtype))  # type: ignore[no-untyped-call]  # torch leaves it untyped
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
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turn(x, cosines, sines, 1)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _turn(outer[0], cosines, sines, -1), None, None


def _turn(x: Tensor, cosines: Tensor, sines: Tensor, direction: int) -> Tensor:
    turned = torch.empty_like(x)
    (first, second), (new_first, new_second) = x.chunk(2, dim=-1), turned.chunk(2, dim=-1)
    torch.mul(first, cosines, out=new_first).addcmul_(second, sines, value=-direction)
    torch.mul(second, cosines, out=new_second).addcmul_(first, sines, value=direction)
    return turned
