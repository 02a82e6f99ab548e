"""The matrices of a decoder for generation: floating point numbers, or 8-bit integers with scales."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from jobs.config import INT8_MULTIPLE
from jobs.errors import InputError

_PACKED_FOR = 64
"""oneDNN packs the weights for products with this number of vectors. If they were packed for one vector, products with
many vectors would take twice as long, and a product with one vector would not be faster."""


class Matrix(Protocol):
    """A matrix (inputs, outputs) that vectors (N, inputs) are multiplied by. Products have the type of the vectors."""

    nbytes: int

    def times(self, x: Tensor) -> Tensor:
        """Multiply the vectors `x` (N, inputs) by this matrix, and return the products (N, outputs)."""

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """Multiply `x` (N, inputs) by this matrix, add the tensor `to` (N, outputs), and return the sum."""


def floating(weight: Tensor, dtype: torch.dtype) -> Matrix:
    """Return `weight` (inputs, outputs) in the floating point form that is fastest on its device."""
    return Packed(weight, dtype) if _can_pack(weight.device, dtype) else Dense(weight, dtype)


class Packed:
    """A matrix of floating point numbers in the memory order of oneDNN. At batch size 32, twice as fast as `Dense`."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        rows = weight.to(dtype).t().contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(rows, _PACKED_FOR)
        self.nbytes = rows.nbytes

    def times(self, x: Tensor) -> Tensor:
        """See `Matrix`."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "none", [], "")
        return product

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """See `Matrix`."""
        total: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, to, self._weight, None, "add")
        return total


def _can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


class Dense:
    """A matrix of floating point numbers in torch's own memory order."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self._weight = weight.to(dtype).contiguous()
        self.nbytes = self._weight.nbytes

    def times(self, x: Tensor) -> Tensor:
        """See `Matrix`."""
        return x @ self._weight

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """See `Matrix`."""
        return torch.addmm(to, x, self._weight)


class Int8:
    """A matrix of integers from -127 to 127, with a scale for each output. Products are computed in bfloat16.

    The matrix has a quarter of the bytes that it has in float32. At batch size 1, a product takes as long as reading
    these bytes.
    """

    def __init__(self, weight: Tensor) -> None:
        if weight.shape[0] % INT8_MULTIPLE:
            raise InputError(
                "generate.dtype=int8 needs a model whose embedding_size and hidden_size are multiples of"
                f" {INT8_MULTIPLE}; one is {weight.shape[0]}; use float32 or bfloat16"
            )
        scales = weight.abs().amax(dim=0).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self._scales = scales.bfloat16()
        self._integers = (weight / scales).round().to(torch.int8).t().contiguous()
        self.nbytes = self._integers.nbytes + self._scales.nbytes

    def times(self, x: Tensor) -> Tensor:
        """See `Matrix`."""
        return torch._weight_int8pack_mm(x.bfloat16(), self._integers, self._scales).to(x.dtype)

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """See `Matrix`."""
        return to + self.times(x)
