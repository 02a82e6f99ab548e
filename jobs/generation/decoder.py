"""The transformer for generation: it prefills all prompts at once, then decodes one token of every sequence at a time.

It computes the same as `jobs.model.llama` in fewer and larger operations, because in small batches a token costs one
read of all weights plus the overhead of each operation. When a model is loaded,

- the projections of queries, keys and values are joined to one matrix, those of gate and up to another;
- the weights of RMSNorm are multiplied into the next matrix;
- the rows of queries and keys are reordered, so that the two features that rotary positions rotate together are
  neighbours, and can be read as one complex number.

Prompts of different lengths are aligned at their first token: position j of a sequence is column j of the cache. Beyond
the end of a shorter sequence, a mask hides the columns until new tokens overwrite them. All shapes depend only on the
batch size and on the number of columns in use, rounded up, so the step can be compiled or captured as a graph.

Shapes in comments: B sequences, T positions, S columns, D embedding size, H heads, K key-value heads, E head size,
N = B T, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch code
from torch import Tensor

from jobs.generation.matrix import Int8, Matrix, floating
from jobs.model.layers import interleaved
from jobs.model.llama import Layer, Llama, LlamaConfig

COLUMNS_STEP = 64
"""The width of the cache grows by this number of columns, so that shapes change rarely."""


class FusedLayer(NamedTuple):
    """The matrices of a layer."""

    qkv: Matrix
    output: Matrix
    gate_up: Matrix
    down: Matrix


class InferenceLlama:
    """A Llama model with fused weights; it can generate, but not train.

    Weights and cache are of the type `dtype_name`: `float32` or `bfloat16`. With `int8` the matrices are int8, if the
    kernel supports their sizes, and the rest is float32. Logits are always float32.
    """

    def __init__(self, model: Llama, dtype_name: str = "float32") -> None:
        dtype = torch.float32 if dtype_name == "int8" else getattr(torch, dtype_name)
        make = Int8 if dtype_name == "int8" else partial(floating, dtype=dtype)
        self.config = model.config
        self.num_positions = model.config.num_positions
        self.embedding = model.output_weight.detach().to(dtype)
        self.head: Matrix = make(_folded(model.output_weight, model.model.norm.weight))
        self.layers = [_fused(cast("Layer", layer), make) for layer in model.model.layers]
        self.angles = model.model.rotary.angles[:, None]  # (P, 1, E / 2)

    @property
    def weight_bytes(self) -> int:
        """Return the bytes that a decoding step reads at least: those of all matrices."""
        return self.head.nbytes + sum(matrix.nbytes for layer in self.layers for matrix in layer)

    def stream(self, contexts: Sequence[Sequence[int]], max_tokens: int) -> CachedStream:
        """Start sequences with `contexts`; the cache has room for `max_tokens` more tokens of each."""
        columns = math.ceil((max(map(len, contexts)) + max_tokens) / COLUMNS_STEP) * COLUMNS_STEP
        return CachedStream(self, contexts, self.new_cache(len(contexts), min(columns, self.num_positions)))

    def new_cache(self, batch_size: int, num_columns: int) -> KeyValueCache:
        """Return an empty cache."""
        return KeyValueCache(self.config, batch_size, num_columns, self.embedding)

    def prefill(self, tokens: Tensor, lengths: Tensor, cache: KeyValueCache) -> Tensor:
        """Return the logits (B, V) after the first `lengths` (B) of `tokens` (B, T), with which it fills the cache."""
        batch_size, num_tokens = tokens.shape
        columns = torch.arange(num_tokens, device=tokens.device)
        cache.start(lengths, int(lengths.max()))
        rows = cache.rows(columns.expand(batch_size, -1))
        hidden = self._layers(tokens, rows, self.angles[columns].repeat(batch_size, 1, 1), cache, None)
        return self._logits(hidden[lengths - 1 + columns.new_tensor(range(batch_size)) * num_tokens])

    def decode(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Return the logits (B, V) after `tokens` (B), which follow the sequences in the cache."""
        mask = self._mask(cache.lengths, cache.widen())
        rows = cache.rows(cache.lengths[:, None])
        hidden = self._layers(tokens[:, None], rows, self.angles[cache.lengths], cache, mask)
        cache.step()
        return self._logits(hidden)

    def _layers(
        self, tokens: Tensor, rows: Tensor, angles: Tensor, cache: KeyValueCache, mask: Tensor | None
    ) -> Tensor:
        """Return the hidden states (N, D) of `tokens` (B, T), before the last norm."""
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
        """Rotate queries and keys of `qkv` (N, (H + 2 K) E) in place; return the queries (N, H E)."""
        num_rotated = self.config.num_heads + self.config.num_kv_heads
        pairs = qkv.view(len(qkv), -1, self.config.head_size // 2, 2)[:, :num_rotated]
        if qkv.dtype == torch.float32:
            torch.view_as_complex(pairs).mul_(angles)
        else:  # there is no complex type for bfloat16
            pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * angles))
        return qkv[:, : self.config.embedding_size]

    def _attend_all(self, queries: Tensor, cache: KeyValueCache, layer: int) -> Tensor:
        """Return causal attention (N, H E) for queries (B, T, H, E) of all positions in the cache."""
        batch_size, num_tokens, num_heads, _ = queries.shape
        keys, values = (x.view(batch_size, -1, *x.shape[1:]) for x in cache.read(layer, num_tokens))
        grouped = keys.shape[1] < num_heads
        queries = queries.transpose(1, 2)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=grouped)
        return mixed.transpose(1, 2).reshape(batch_size * num_tokens, -1)

    def _attend_last(self, queries: Tensor, cache: KeyValueCache, layer: int, mask: Tensor) -> Tensor:
        """Return attention (B, H E) for queries (B, H E) of one token per sequence; the mask is (B K, 1, S).

        For one query, explicit products are faster than the fused CPU kernel.
        """
        keys, values = cache.read(layer, mask.shape[-1])
        grouped = queries.reshape(len(keys), -1, self.config.head_size)  # (B K, H / K, E)
        scores = torch.baddbmm(mask, grouped, keys.transpose(1, 2), alpha=self.config.head_size**-0.5)
        return torch.bmm(scores.softmax(dim=-1), values).view(len(queries), -1)

    def _mask(self, lengths: Tensor, num_columns: int) -> Tensor:
        """Return the mask (B K, 1, S): 0 for the filled columns of a sequence and the next one, else minus infinity."""
        hidden = torch.arange(num_columns, device=lengths.device) > lengths[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.embedding.dtype, device=lengths.device)
        return mask.masked_fill_(hidden, -math.inf).repeat_interleave(self.config.num_kv_heads, dim=0)[:, None]

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), None, self.config.norm_epsilon)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.head.times(self._norm(hidden)).float()


class CachedStream:
    """Sequences that are prefilled once, then decoded with cached keys and values.

    When the longest sequence fills the context, those that are too long lose their first half, and all are prefilled
    again.
    """

    def __init__(self, model: InferenceLlama, contexts: Sequence[Sequence[int]], cache: KeyValueCache) -> None:
        self._model = model
        self._contexts = [list(context) for context in contexts]
        self._cache = cache
        self.logits = self._prefill()

    def feed(self, tokens: Tensor) -> None:
        """Append one of `tokens` (B) to each sequence, and compute the logits after it."""
        for context, token in zip(self._contexts, tokens.tolist(), strict=True):
            context.append(token)
        if self._cache.longest < self._model.num_positions:
            self.logits = self._model.decode(tokens, self._cache)
        else:
            most = self._model.num_positions
            halved = max(1, most // 2)
            self._contexts = [context if len(context) <= most else context[-halved:] for context in self._contexts]
            self.logits = self._prefill()

    def _prefill(self) -> Tensor:
        lengths = [len(context) for context in self._contexts]
        rows = [context + [0] * (max(lengths) - len(context)) for context in self._contexts]
        device = self._model.embedding.device
        return self._model.prefill(torch.tensor(rows, device=device), torch.tensor(lengths, device=device), self._cache)


class KeyValueCache:
    """Keys and values of a batch of sequences, in one buffer that is allocated once.

    Position j of a sequence is column j; the first `lengths` (B) columns are filled. The columns of a head are
    contiguous, so the products over them in a decoding step are plain matrix products. Only the columns in use lie
    between two heads, because products in bfloat16 copy operands with gaps.
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
    """Return the matrix (inputs, outputs) of a norm's weights followed by `weight` (outputs, inputs)."""
    return (weight.detach() * norm.detach()).t()


def _swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)
