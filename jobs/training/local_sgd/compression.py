"""Compression of weight deltas: float32, bfloat16, or int8 with one scale per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_SCALE = "/scale"
_MAX_INT8 = 127


def encode(deltas: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return the tensors of a delta as they are stored.

    With `int8`, each row (the last dimension) has one scale. The error of a number is at most half a scale, which is
    1/254 of the largest number in its row.
    """
    if dtype != "int8":
        return {name: delta.to(getattr(torch, dtype)).contiguous() for name, delta in deltas.items()}
    encoded: dict[str, Tensor] = {}
    for name, delta in deltas.items():
        scale = delta.abs().amax(dim=-1, keepdim=True) / _MAX_INT8
        scaled = delta / torch.where(scale > 0, scale, torch.ones_like(scale))
        encoded[name], encoded[name + _SCALE] = scaled.round().to(torch.int8), scale.float()
    return encoded


def decode(name: str, read: Callable[[str], Tensor]) -> Tensor:
    """Return the delta `name` as float32; `read` returns a stored tensor by its name."""
    stored = read(name)
    return stored.float() if stored.dtype != torch.int8 else stored * read(name + _SCALE)
