"""The key-value cache of a decoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jobs.model.llama import LlamaConfig

COLUMNS_STEP = 64
"""The width of the cache grows by this number of columns, so that shapes change rarely."""


class KeyValueCache:
    """Keys and values of a batch of sequences, in one buffer that is allocated once.

    Position j of a sequence is column j; the first `lengths` (B) columns are filled. The columns of a head are
    contiguous, so the products over them in a decoding step are plain matrix products. Only the columns in use lie
    between two heads, because products in bfloat16 copy operands with gaps.

    Shapes in comments: B sequences, T positions, S columns, K key-value heads, E head size, N = B T.
    """

    def __init__(self, config: LlamaConfig, batch_size: int, num_columns: int, like: Tensor) -> None:
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=like.device)
        self.longest = 0
        self._shape = (2, batch_size * config.num_kv_heads, num_columns, config.head_size)
        self._buffer = like.new_zeros(config.num_layers, math.prod(self._shape))  # masked values must be finite
        self._set_width()

    def start(self, lengths: Tensor, longest: int) -> None:
        """Empty the cache, with columns for sequences of `lengths` (B) and one more token each."""
        self.lengths, self.longest = lengths, longest
        self._set_width()

    def step(self) -> None:
        """Count one more filled column of each sequence."""
        self.lengths = self.lengths + 1
        self.longest += 1

    def widen(self) -> int:
        """Make room for one more token per sequence; return the number of columns in use."""
        if self.longest < self._width:
            return self._width
        stored = [self._columns(layer).clone() for layer in range(len(self._buffer))]
        width = self._width
        self._set_width()
        for layer, columns in enumerate(stored):
            self._columns(layer)[:, :, :width] = columns
        return self._width

    def rows(self, columns: Tensor) -> Tensor:
        """Return the rows (2 K N) of the buffer for keys and values at `columns` (B, T) of each sequence."""
        return (self._first_rows[:, None] + columns[:, :, None]).flatten()

    def write(self, layer: int, rows: Tensor, keys_and_values: Tensor) -> None:
        """Store keys and values (N, 2 K E) of a layer in `rows` of the buffer."""
        self._columns(layer).flatten(0, 2).index_copy_(0, rows, keys_and_values.reshape(len(rows), -1))

    def read(self, layer: int, num_columns: int) -> tuple[Tensor, Tensor]:
        """Return keys and values (B K, S, E) of a layer in the first columns."""
        keys, values = self._columns(layer)[:, :, :num_columns]
        return keys, values

    def _set_width(self) -> None:
        """Use as many columns as the longest sequence and one more token need."""
        sides, heads, max_width, _ = self._shape
        self._width = min(max_width, (self.longest // COLUMNS_STEP + 1) * COLUMNS_STEP)
        rows = torch.arange(0, sides * heads * self._width, self._width, device=self.lengths.device)
        self._first_rows = rows.view(2, len(self.lengths), -1).transpose(0, 1).flatten(1)  # (B, 2 K)

    def _columns(self, layer: int) -> Tensor:
        """Return the columns in use (2, B K, S, E) of a layer."""
        sides, heads, _, size = self._shape
        return self._buffer[layer, : sides * heads * self._width * size].view(sides, heads, self._width, size)
