"""How far weights moved, as it travels: float32, bfloat16, or int8 with a scale for each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_SCALE = "/scale"
_MOST = 127


def encode(deltas: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """The tensors of a delta as they are written.

    With `int8` a row (the last dimension) has one scale, and no number is off by more than half a scale, a 254th of
    the row's largest.
    """
    if dtype != "int8":
        return {name: delta.to(getattr(torch, dtype)).contiguous() for name, delta in deltas.items()}
    encoded: dict[str, Tensor] = {}
    for name, delta in deltas.items():
        scale = delta.abs().amax(dim=-1, keepdim=True) / _MOST
        steps = delta / torch.where(scale > 0, scale, torch.ones_like(scale))
        encoded[name], encoded[name + _SCALE] = steps.round().to(torch.int8), scale.float()
    return encoded


def decode(name: str, read: Callable[[str], Tensor]) -> Tensor:
    """The delta `name` as float32; `read` gives an encoded tensor by its name."""
    stored = read(name)
    return stored.float() if stored.dtype != torch.int8 else stored * read(name + _SCALE)
