"""The transformer for generation: it prefills all prompts at once, then decodes one token of every sequence at a time.

It computes the same function as `jobs.model.llama` in fewer and larger operations, because in small batches a token
costs one read of all weights plus the overhead of each operation. When a model is loaded,

- the projections of queries, keys and values are joined to one matrix, and so are the two projections of SwiGLU;
- the weights of RMSNorm are multiplied into the next matrix;
- the rows of queries and keys are reordered, so that the two features that rotary positions rotate together are
  neighbours, and can be read as one complex number.

Prompts of different lengths are aligned at their first token: position j of a sequence is in column j of the cache.
Beyond the end of a shorter sequence, a mask hides the columns until new tokens overwrite them. So a sequence may join
the others or leave at any step. All shapes depend only on the batch size and on the number of columns in use, rounded
up, so the step can be compiled or captured as a graph.

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

    Weights and cache are of the type `dtype_name`: `float32` or `bfloat16`. With `int8`, the matrices are int8 and the
    rest is float32. Matrix sizes that the int8 kernel does not support raise an InputError. Logits are always float32.
    """

    accepts_long_prompts = False
    """Whether the context is a sliding window. A prompt may then be longer: the model reads only its last tokens."""

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
        """Return the size of all matrices in bytes, which is the least that a decoding step reads."""
        return self.head.nbytes + sum(matrix.nbytes for layer in self.layers for matrix in layer)

    def stream(self) -> CachedStream:
        """Return a new `CachedStream` without sequences."""
        return CachedStream(self)

    def new_cache(self) -> KeyValueCache:
        """Return an empty cache."""
        return KeyValueCache(self.config, self.embedding)

    def prefill(self, contexts: Sequence[Sequence[int]], rows: Sequence[int], cache: KeyValueCache) -> Tensor:
        """Store the keys and values of `contexts` in the `rows` (B) of the cache.

        Return the logits (B, V) of the token after each context.
        """
        device = self.embedding.device
        lengths = torch.tensor([len(context) for context in contexts], device=device)
        num_tokens = max(map(len, contexts))
        tokens = torch.tensor([[*context, *[0] * (num_tokens - len(context))] for context in contexts], device=device)
        columns = torch.arange(num_tokens, device=device)
        places = cache.places(columns.expand(len(contexts), -1), cache.start(rows, lengths))
        hidden = self._layers(tokens, places, self.angles[columns].repeat(len(contexts), 1, 1), cache, None)
        return self._logits(hidden[lengths - 1 + columns.new_tensor(range(len(contexts))) * num_tokens])

    def decode(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Append to each cached sequence its token of `tokens` (B), and return the logits (B, V) of the next tokens."""
        mask = self._mask(cache.lengths, cache.widen())
        places = cache.places(cache.lengths[:, None])
        hidden = self._layers(tokens[:, None], places, self.angles[cache.lengths], cache, mask)
        cache.step()
        return self._logits(hidden)

    def _layers(
        self, tokens: Tensor, places: Tensor, angles: Tensor, cache: KeyValueCache, mask: Tensor | None
    ) -> Tensor:
        """Return the hidden states (N, D) of `tokens` (B, T), before the last norm."""
        x = self.embedding[tokens.flatten()]
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv.times(self._norm(x))
            queries = self._rotated(qkv, angles)
            cache.write(index, places, qkv[:, self.config.embedding_size :])
            if mask is None:
                mixed = self._attend_all(qkv.view(*tokens.shape, -1, self.config.head_size))
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

    def _attend_all(self, heads: Tensor) -> Tensor:
        """Return causal attention (N, H E) for the queries, keys and values `heads` (B, T, H + 2 K, E)."""
        num_heads, num_kv_heads = self.config.num_heads, self.config.num_kv_heads
        queries, keys, values = torch.split(heads.transpose(1, 2), [num_heads, num_kv_heads, num_kv_heads], dim=1)
        grouped = num_kv_heads < num_heads
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=grouped)
        return mixed.transpose(1, 2).reshape(-1, self.config.embedding_size)

    def _attend_last(self, queries: Tensor, cache: KeyValueCache, layer: int, mask: Tensor) -> Tensor:
        """Return the attention (B, H E) of one new token per sequence over the cached columns of its sequence.

        `queries` are (B, H E), and `mask` is (B K, 1, S). For one query, explicit products are faster than the fused
        CPU kernel.
        """
        keys, values = cache.read(layer, mask.shape[-1])
        grouped = queries.reshape(len(keys), -1, self.config.head_size)  # (B K, H / K, E)
        scores = torch.baddbmm(mask, grouped, keys.transpose(1, 2), alpha=self.config.head_size**-0.5)
        return torch.bmm(scores.softmax(dim=-1), values).view(len(queries), -1)

    def _mask(self, lengths: Tensor, num_columns: int) -> Tensor:
        """Return the mask (B K, 1, S): 0 for a sequence's filled columns and the column after them, else -infinity."""
        hidden = torch.arange(num_columns, device=lengths.device) > lengths[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.embedding.dtype, device=lengths.device)
        return mask.masked_fill_(hidden, -math.inf).repeat_interleave(self.config.num_kv_heads, dim=0)[:, None]

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), None, self.config.norm_epsilon)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.head.times(self._norm(hidden)).float()


class CachedStream:
    """Sequences that are prefilled once, then decoded with cached keys and values.

    A sequence that fills the context loses its first half; the rest is prefilled again.
    """

    def __init__(self, model: InferenceLlama) -> None:
        self._model = model
        self._cache = model.new_cache()
        self._contexts: list[list[int]] = []
        self.logits = torch.zeros(0, model.config.vocab_size, device=model.embedding.device)
        """The logits (B, V) of each sequence's next token."""

    def join(self, contexts: Sequence[Sequence[int]]) -> None:
        """Add sequences after the existing ones, each with at least one token."""
        rows = range(len(self._contexts), len(self._contexts) + len(contexts))
        self._contexts += [list(context) for context in contexts]
        self.logits = torch.cat((self.logits, self._model.prefill(contexts, rows, self._cache)))

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only the sequences `rows`, in this order."""
        self._contexts = [self._contexts[row] for row in rows]
        self._cache.keep(rows)
        self.logits = self.logits[list(rows)]

    def feed(self, tokens: Tensor) -> None:
        """Append to each sequence its token of `tokens` (B), and compute the logits of the token that follows."""
        for context, token in zip(self._contexts, tokens.tolist(), strict=True):
            context.append(token)
        most = self._model.num_positions
        if full := [row for row, context in enumerate(self._contexts) if len(context) > most]:
            self._halve(full)
        self.logits = self._model.decode(tokens, self._cache)

    def _halve(self, rows: Sequence[int]) -> None:
        """Drop the first half of each context in `rows`.

        Prefill the rest without its last token, which `feed` decodes next.
        """
        for row in rows:
            self._contexts[row] = self._contexts[row][-max(1, self._model.num_positions // 2) :]
        rests = [self._contexts[row][:-1] for row in rows]
        if rests[0]:  # all have the same length
            self._model.prefill(rests, rows, self._cache)
        else:
            self._cache.start(rows, self._cache.lengths.new_zeros(len(rows)))


class KeyValueCache:
    """Keys and values of a batch of sequences, in one buffer that grows with them.

    Position j of a sequence is column j; the first `lengths` (B) columns are filled. The columns of a head are
    contiguous, so the products over them in a decoding step are plain matrix products. The buffer is only a little
    wider than the longest sequence, because matrix products in bfloat16 copy operands that are not contiguous.
    """

    def __init__(self, config: LlamaConfig, like: Tensor) -> None:
        self.lengths = torch.zeros(0, dtype=torch.long, device=like.device)
        self._longest = 0
        self._most_columns = config.num_positions
        self._num_heads = config.num_kv_heads
        self._resize(like.new_zeros(config.num_layers, 2, 0, config.num_kv_heads, 0, config.head_size), 0, 0)

    def start(self, rows: Sequence[int], lengths: Tensor) -> Tensor:
        """Make room for sequences of `lengths` (B) tokens in the rows `rows`, and return `rows` (B) as a tensor.

        `rows` are existing rows, or new rows that follow the existing ones.
        """
        num_new = max(0, max(rows) + 1 - len(self.lengths))
        self.lengths = torch.cat((self.lengths, self.lengths.new_zeros(num_new)))
        chosen = torch.tensor(list(rows), device=lengths.device)
        self.lengths[chosen] = lengths
        self._longest = int(self.lengths.max())
        self.widen()
        return chosen

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only the sequences `rows`, in this order. A sequence is copied only if its row changes."""
        moved = [(to, row) for to, row in enumerate(rows) if to != row]
        if moved:
            to, origin = map(list, zip(*moved, strict=True))
            self._buffer[:, :, to] = self._buffer[:, :, origin]
        self.lengths = self.lengths[list(rows)]
        self._longest = int(self.lengths.max()) if rows else 0
        if not rows:
            self._resize(self._buffer, 0, 0)

    def step(self) -> None:
        """Count one more filled column for each sequence."""
        self.lengths = self.lengths + 1
        self._longest += 1

    def widen(self) -> int:
        """Make room for one more token per sequence; return the number of columns in use, rounded up."""
        needed = min(self._most_columns, (self._longest // COLUMNS_STEP + 1) * COLUMNS_STEP)
        num_rows, width = self._buffer.shape[2], self._buffer.shape[4]
        if len(self.lengths) > num_rows or needed > width:
            num_rows = num_rows if len(self.lengths) <= num_rows else max(len(self.lengths), 2 * num_rows)
            self._resize(self._buffer, num_rows, max(needed, width))
        return needed

    def places(self, columns: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the indices (2 K N) of the columns `columns` (B, T) in a layer's flattened buffer.

        The B sequences are those in `rows`. Without `rows`, they are all sequences.
        """
        first = self._first_places[: len(self.lengths)] if rows is None else self._first_places[rows]
        return (first[:, None] + columns[:, :, None]).flatten()

    def write(self, layer: int, places: Tensor, keys_and_values: Tensor) -> None:
        """Store keys and values (N, 2 K E) of a layer at the indices `places` of the layer's flattened buffer."""
        self._buffer[layer].flatten(0, 3).index_copy_(0, places, keys_and_values.reshape(len(places), -1))

    def read(self, layer: int, num_columns: int) -> tuple[Tensor, Tensor]:
        """Return keys and values (B K, S, E) of a layer, from the first `num_columns` columns."""
        keys, values = self._buffer[layer, :, : len(self.lengths), :, :num_columns].flatten(1, 2)
        return keys, values

    def _resize(self, before: Tensor, num_rows: int, width: int) -> None:
        """Make a buffer for `num_rows` sequences of `width` columns. Copy what fits from `before`, the old buffer."""
        num_layers, _, old_rows, num_heads, old_width, size = before.shape
        self._buffer = before.new_zeros(num_layers, 2, num_rows, num_heads, width, size)  # masked values must be finite
        kept_rows, kept_width = min(old_rows, num_rows), min(old_width, width)
        self._buffer[:, :, :kept_rows, :, :kept_width] = before[:, :, :kept_rows, :, :kept_width]
        starts = torch.arange(0, 2 * num_rows * num_heads * width, max(1, width), device=before.device)
        self._first_places = starts.view(2, num_rows, num_heads).transpose(0, 1).flatten(1)  # (rows, 2 K)


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
    """Return one matrix (inputs, outputs) that applies a norm's weights and then `weight` (outputs, inputs)."""
    return (weight.detach() * norm.detach()).t()


def _swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)
