"""The matrices of a decoder as they are kept for generating: in floating point, or as 8-bit integers."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from jobs.errors import InputError

_INT8_INPUTS = 16  # torch's kernel reads so many at a time, whatever there is
_PACKED_FOR = 64  # vectors at a time; packed for one, oneDNN multiplies many at half the speed, and one no faster


class Matrix(Protocol):
    """What vectors (N, inputs) are multiplied with, to become (N, outputs) of the same type."""

    nbytes: int

    def times(self, x: Tensor) -> Tensor:
        """The product (N, outputs)."""

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """The product and `to` (N, outputs)."""


def floating(weight: Tensor, dtype: torch.dtype) -> Matrix:
    """A `weight` (inputs, outputs) of a floating point type, as it is multiplied with fastest where it is."""
    return Packed(weight, dtype) if _can_pack(weight.device, dtype) else Dense(weight, dtype)


class Packed:
    """Numbers in the order in which oneDNN reads them: at batch 32 twice as fast as products that order them anew."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        """`weight` is (inputs, outputs)."""
        rows = weight.to(dtype).t().contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(rows, _PACKED_FOR)
        self.nbytes = rows.nbytes

    def times(self, x: Tensor) -> Tensor:
        """As `Matrix` has it."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "none", [], "")
        return product

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """As `Matrix` has it."""
        total: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, to, self._weight, None, "add")
        return total


def _can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies numbers of this type there."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


class Dense:
    """Numbers of a floating point type."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        """`weight` is (inputs, outputs)."""
        self._weight = weight.to(dtype).contiguous()
        self.nbytes = self._weight.nbytes

    def times(self, x: Tensor) -> Tensor:
        """As `Matrix` has it."""
        return x @ self._weight

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """As `Matrix` has it."""
        return torch.addmm(to, x, self._weight)


class Int8:
    """Integers of -127 to 127 with a scale for each output; products are computed in bfloat16.

    A quarter of the bytes of float32, and at batch 1 it is bytes that a step waits for.
    """

    def __init__(self, weight: Tensor) -> None:
        """`weight` is (inputs, outputs).

        Raises:
            InputError: if the number of inputs is one that torch's kernel cannot read.
        """
        if weight.shape[0] % _INT8_INPUTS:
            raise InputError(
                f"generate.dtype=int8 needs sizes of the model that are multiples of {_INT8_INPUTS}, not"
                f" {weight.shape[0]}: take float32 or bfloat16"
            )
        scales = weight.abs().amax(dim=0).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self._scales = scales.bfloat16()
        self._integers = (weight / scales).round().to(torch.int8).t().contiguous()
        self.nbytes = self._integers.nbytes + self._scales.nbytes

    def times(self, x: Tensor) -> Tensor:
        """As `Matrix` has it."""
        return torch._weight_int8pack_mm(x.bfloat16(), self._integers, self._scales).to(x.dtype)

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """As `Matrix` has it."""
        return to + self.times(x)
