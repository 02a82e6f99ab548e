"""The decoder for generating: one prefill of all prompts, then a token of every sequence at a time.

It computes what `jobs.model.llama` does, in fewer and larger operations, since at small batches a token costs the
reading of all weights and the overhead of each operation. At load time the projections of queries, keys and values
become one matrix, those of gate and up another; RMSNorm's weights are multiplied into the matrix that follows; and
the rows of queries and keys are reordered so that the features that rotary positions turn together are neighbours:
a pair is then a complex number.

Prompts of different lengths lie from the left: position j of a sequence is column j of its cache. What stands behind
a shorter prompt is hidden by a mask until its own tokens replace it. Shapes depend on the batch and on the number of
columns in use, rounded up, alone: so the step can be compiled or captured as a graph.

Shapes in comments: B sequences, T positions, S columns, D embedding size, H heads, K key-value heads, E head size,
N = B T, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that all torch code knows it by
from torch import Tensor

from jobs.generation.matrix import Int8, Matrix, floating
from jobs.generation.stream import CachedStream
from jobs.model.layers import interleaved
from jobs.model.llama import Layer, Llama, LlamaConfig

COLUMNS_STEP = 64


class FusedLayer(NamedTuple):
    """The four matrices of a layer."""

    qkv: Matrix
    output: Matrix
    gate_up: Matrix
    down: Matrix


class KeyValueCache:
    """Keys and values of a batch, in one buffer that is allocated once; `lengths` (B) columns are filled.

    The columns of a head lie together, so that a step's products over them are plain matrix products, and heads follow
    each other with no more than the columns in use, since products in bfloat16 copy what has gaps.
    """

    def __init__(self, config: LlamaConfig, batch_size: int, num_columns: int, like: Tensor) -> None:
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=like.device)
        self.longest = 0
        self._shape = (2, batch_size * config.num_kv_heads, num_columns, config.head_size)
        self._buffer = like.new_zeros(config.num_layers, math.prod(self._shape))  # what a mask hides must be finite
        self._set_width()

    def start(self, lengths: Tensor, longest: int) -> None:
        """Have columns for sequences of `lengths` (B) and a token more; what was stored is gone."""
        self.lengths, self.longest = lengths, longest
        self._set_width()

    def step(self) -> None:
        """One more column is filled of each sequence."""
        self.lengths = self.lengths + 1
        self.longest += 1

    def widen(self) -> int:
        """Have columns for a token more, and say how many are in use."""
        if self.longest < self._width:
            return self._width
        stored = [self._columns(layer).clone() for layer in range(len(self._buffer))]
        width = self._width
        self._set_width()
        for layer, columns in enumerate(stored):
            self._columns(layer)[:, :, :width] = columns
        return self._width

    def rows(self, columns: Tensor) -> Tensor:
        """Where in the buffer keys and values at `columns` (B, T) of each sequence belong: (2 K N)."""
        return (self._first_rows[:, None] + columns[:, :, None]).flatten()

    def write(self, layer: int, rows: Tensor, keys_and_values: Tensor) -> None:
        """Store keys and values (N, 2 K E)."""
        self._columns(layer).flatten(0, 2).index_copy_(0, rows, keys_and_values.reshape(len(rows), -1))

    def read(self, layer: int, num_columns: int) -> tuple[Tensor, Tensor]:
        """Keys and values (B K, S, E) of the first columns."""
        keys, values = self._columns(layer)[:, :, :num_columns]
        return keys, values

    def _set_width(self) -> None:
        """Use as many columns as the longest sequence and a token more need."""
        sides, heads, most, _ = self._shape
        self._width = min(most, (self.longest // COLUMNS_STEP + 1) * COLUMNS_STEP)
        rows = torch.arange(0, sides * heads * self._width, self._width, device=self.lengths.device)
        self._first_rows = rows.view(2, len(self.lengths), -1).transpose(0, 1).flatten(1)  # (B, 2 K)

    def _columns(self, layer: int) -> Tensor:
        """The columns in use (2, B K, S, E)."""
        sides, heads, _, size = self._shape
        return self._buffer[layer, : sides * heads * self._width * size].view(sides, heads, self._width, size)


class InferenceLlama:
    """A Llama with fused weights, for generating alone."""

    def __init__(self, model: Llama, dtype_name: str = "float32") -> None:
        """Fuse the weights of `model`.

        Args:
            model: A trained model.
            dtype_name: `float32` or `bfloat16`, for weights and cache; or `int8` for matrices, with all else float32.
                Logits are always float32.

        Raises:
            InputError: for `int8`, if the model's sizes do not allow it.
        """
        dtype = torch.float32 if dtype_name == "int8" else getattr(torch, dtype_name)
        make = Int8 if dtype_name == "int8" else partial(floating, dtype=dtype)
        self.config = model.config
        self.embedding = model.output_weight.detach().to(dtype)
        self.head: Matrix = make(_folded(model.output_weight, model.model.norm.weight))
        self.layers = [_fused(cast("Layer", layer), make) for layer in model.model.layers]
        self.angles = model.model.rotary.angles[:, None]  # (P, 1, E / 2)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @property
    def weight_bytes(self) -> int:
        """Bytes that one step reads at least: every matrix once, and of the embeddings next to nothing."""
        return self.head.nbytes + sum(matrix.nbytes for layer in self.layers for matrix in layer)

    @property
    def num_positions(self) -> int:
        """Tokens of context."""
        return self.config.num_positions

    def stream(self, contexts: Sequence[Sequence[int]], most_tokens: int) -> CachedStream:
        """Start sequences with `contexts`; `most_tokens` is how many will be fed: the cache need not be longer."""
        columns = math.ceil((max(map(len, contexts)) + most_tokens) / COLUMNS_STEP) * COLUMNS_STEP
        return CachedStream(self, contexts, self.new_cache(len(contexts), min(columns, self.num_positions)))

    def new_cache(self, batch_size: int, num_columns: int) -> KeyValueCache:
        """An empty cache."""
        return KeyValueCache(self.config, batch_size, num_columns, self.embedding)

    def prefill(self, tokens: Tensor, lengths: Tensor, cache: KeyValueCache) -> Tensor:
        """Logits (B, V), float32, after the first `lengths` (B) of `tokens` (B, T); starts the cache anew."""
        batch_size, num_tokens = tokens.shape
        columns = torch.arange(num_tokens, device=tokens.device)
        cache.start(lengths, int(lengths.max()))
        rows = cache.rows(columns.expand(batch_size, -1))
        hidden = self._layers(tokens, rows, self.angles[columns].repeat(batch_size, 1, 1), cache, None)
        return self._logits(hidden[lengths - 1 + columns.new_tensor(range(batch_size)) * num_tokens])

    def decode(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Logits (B, V), float32, after `tokens` (B), which follow what the cache holds."""
        mask = self._mask(cache.lengths, cache.widen())
        rows = cache.rows(cache.lengths[:, None])
        hidden = self._layers(tokens[:, None], rows, self.angles[cache.lengths], cache, mask)
        cache.step()
        return self._logits(hidden)

    def _layers(
        self, tokens: Tensor, rows: Tensor, angles: Tensor, cache: KeyValueCache, mask: Tensor | None
    ) -> Tensor:
        """Hidden states (N, D) of `tokens` (B, T), before the last norm."""
        x = self.embedding[tokens.flatten()]
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv.times(self._norm(x))
            queries = self._rotated(qkv, angles)
            cache.write(index, rows, qkv[:, self.config.embedding_size :])
            if mask is None:
                mixed = self._attend_all(queries.view(*tokens.shape, self.config.num_heads, -1), cache, index)
            else:
                mixed = self._attend_last(queries, cache, index, mask)
            x = layer.output.added(x, mixed)
            x = layer.down.added(x, _swiglu(layer.gate_up.times(self._norm(x))))
        return x

    def _rotated(self, qkv: Tensor, angles: Tensor) -> Tensor:
        """Turn queries and keys of `qkv` (N, (H + 2 K) E) in place; return the queries (N, H E)."""
        num_turned = self.config.num_heads + self.config.num_kv_heads
        pairs = qkv.view(len(qkv), -1, self.config.head_size // 2, 2)[:, :num_turned]
        if qkv.dtype == torch.float32:
            torch.view_as_complex(pairs).mul_(angles)
        else:  # complex numbers come in float32 alone
            pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * angles))
        return qkv[:, : self.config.embedding_size]

    def _attend_all(self, queries: Tensor, cache: KeyValueCache, layer: int) -> Tensor:
        """Mix the values causally: queries (B, T, H, E), which are all that the cache holds, to (N, H E)."""
        batch_size, num_tokens, num_heads, _ = queries.shape
        keys, values = (x.view(batch_size, -1, *x.shape[1:]) for x in cache.read(layer, num_tokens))
        grouped = keys.shape[1] < num_heads
        mixed = F.scaled_dot_product_attention(
            queries.transpose(1, 2), keys, values, is_causal=True, enable_gqa=grouped
        )
        return mixed.transpose(1, 2).reshape(batch_size * num_tokens, -1)

    def _attend_last(self, queries: Tensor, cache: KeyValueCache, layer: int, mask: Tensor) -> Tensor:
        """Mix the values: queries (B, H E) of one token each, mask (B K, 1, S), to (B, H E).

        Spelled out: with one query the fused CPU kernel takes longer, in bfloat16 several times.
        """
        keys, values = cache.read(layer, mask.shape[-1])
        grouped = queries.reshape(len(keys), -1, self.config.head_size)  # (B K, H / K, E)
        scores = torch.baddbmm(mask, grouped, keys.transpose(1, 2), alpha=self.config.head_size**-0.5)
        return torch.bmm(scores.softmax(dim=-1), values).view(len(queries), -1)

    def _mask(self, lengths: Tensor, num_columns: int) -> Tensor:
        """What each sequence hides (B K, 1, S): 0 for its filled columns and the next, else minus infinity."""
        hidden = torch.arange(num_columns, device=lengths.device) > lengths[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.embedding.dtype, device=lengths.device)
        return mask.masked_fill_(hidden, -math.inf).repeat_interleave(self.config.num_kv_heads, dim=0)[:, None]

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), None, self.config.norm_epsilon)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.head.times(self._norm(hidden)).float()


def _fused(layer: Layer, make: Callable[[Tensor], Matrix]) -> FusedLayer:
    attention, feed_forward = layer.self_attn, layer.mlp
    queries, keys = (interleaved(x.weight, attention.head_size) for x in (attention.q_proj, attention.k_proj))
    qkv = torch.cat((queries, keys, attention.v_proj.weight))
    gate_up = torch.cat((feed_forward.gate_proj.weight, feed_forward.up_proj.weight))
    return FusedLayer(
        make(_folded(qkv, layer.input_layernorm.weight)),
        make(attention.o_proj.weight.detach().t()),
        make(_folded(gate_up, layer.post_attention_layernorm.weight)),
        make(feed_forward.down_proj.weight.detach().t()),
    )


def _folded(weight: Tensor, norm: Tensor) -> Tensor:
    """`weight` (outputs, inputs) after a norm with weights: one matrix (inputs, outputs)."""
    return (weight.detach() * norm.detach()).t()


def _swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)
