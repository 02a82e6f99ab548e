"""The matrices of a decoder as they are kept for generating: in floating point, or as 8-bit integers."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from jobs.errors import InputError

_INT8_INPUTS = 16  # torch's kernel reads so many at a time, whatever there is


class Matrix(Protocol):
    """What vectors (N, inputs) are multiplied with, to become (N, outputs) of the same type."""

    nbytes: int

    def times(self, x: Tensor) -> Tensor:
        """The product (N, outputs)."""

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """The product and `to` (N, outputs)."""


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
