"""The decoder: Llama's architecture (Touvron et al. 2023, arXiv:2302.13971) in one file.

RMSNorm (arXiv:1910.07467) before each block, rotary positions (arXiv:2104.09864), SwiGLU (arXiv:2002.05202), grouped
queries (arXiv:2305.13245), tied embeddings. Parameters carry the names, shapes and conventions of Hugging Face's
`LlamaForCausalLM`, so that a state dictionary is a checkpoint of either.

Shapes in comments: B sequences, T positions, D embedding size, H heads, K key-value heads, E = D / H, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name that all torch code knows it by
from torch import Tensor, nn

from jobs.config import ModelConfig

INITIAL_STD = 0.02


@dataclass(frozen=True)
class LlamaConfig:
    """Everything that decides the shapes and the arithmetic."""

    vocab_size: int
    num_positions: int
    num_layers: int
    embedding_size: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    rope_theta: float
    norm_epsilon: float

    @classmethod
    def of(cls, config: ModelConfig, vocab_size: int, num_positions: int) -> LlamaConfig:
        """The run's model for a vocabulary and a context of `num_positions` tokens."""
        return cls(vocab_size, num_positions, **config.model_dump())

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.embedding_size // self.num_heads


class KeyValueCache:
    """Keys and values of the positions that were seen, in buffers that are allocated once.

    `length` positions are filled; a forward pass appends its own.
    """

    def __init__(self, config: LlamaConfig, batch_size: int, num_positions: int, like: Tensor) -> None:
        shape = (config.num_layers, 2, batch_size, config.num_kv_heads, num_positions, config.head_size)
        self.length = 0
        self._buffer = like.new_empty(shape)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, K, T, E) behind the filled positions; return all of the layer's so far."""
        end = self.length + keys.shape[2]
        buffer = self._buffer[layer, :, :, :, :end]
        buffer[0, :, :, self.length :] = keys
        buffer[1, :, :, self.length :] = values
        return buffer[0], buffer[1]


class RotaryPositions(nn.Module):
    """Turns pairs of features by angles that grow with the position: feature i is paired with i + E/2."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        exponents = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
        angles = torch.outer(torch.arange(config.num_positions, dtype=torch.float64), config.rope_theta**-exponents)
        self.register_buffer("cosines", angles.cos().float(), persistent=False)
        self.register_buffer("sines", angles.sin().float(), persistent=False)

    def forward(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, E/2) of the positions `start` to `start + length`."""
        return self.cosines[start : start + length], self.sines[start : start + length]


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs of features of `x` (B, H, T, E)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1).to(x.dtype)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of the last T of S positions: queries (B, H, T, E), keys and values (B, K, S, E)."""
    num_queries, num_keys = queries.shape[2], keys.shape[2]
    if _spelled_out_is_faster(queries, num_keys):
        return _attend_spelled_out(queries, keys, values)
    mask = None if num_queries in (1, num_keys) else _visible(num_queries, num_keys, queries.device)
    grouped = keys.shape[1] < queries.shape[1]
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, is_causal=num_queries == num_keys > 1, enable_gqa=grouped
    )


def _spelled_out_is_faster(queries: Tensor, num_keys: int) -> bool:
    """On CPUs the fused kernel's bfloat16 backward pass takes 4 times as long, while the scores fit in the caches."""
    return (
        queries.requires_grad and queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and num_keys <= 512
    )


def _attend_spelled_out(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    groups = queries.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (keys, values))
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)  # (B, H, T, S)
    visible = _visible(queries.shape[2], keys.shape[2], queries.device)
    weights = scores.masked_fill(~visible, -math.inf).softmax(dim=-1)
    return torch.matmul(weights, values)


def _visible(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """What the last `num_queries` of `num_keys` positions may see, as booleans."""
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)


class Attention(nn.Module):
    """Causal self-attention; H / K query heads share a key-value head."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_size = config.head_size
        kv_size = config.num_kv_heads * config.head_size
        self.q_proj = nn.Linear(config.embedding_size, config.embedding_size, bias=False)
        self.k_proj = nn.Linear(config.embedding_size, kv_size, bias=False)
        self.v_proj = nn.Linear(config.embedding_size, kv_size, bias=False)
        self.o_proj = nn.Linear(config.embedding_size, config.embedding_size, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], cache: KeyValueCache | None) -> Tensor:
        """Mix positions: (B, T, D) to (B, T, D)."""
        queries = rotate(self._heads(self.q_proj(x)), *rotation)
        keys = rotate(self._heads(self.k_proj(x)), *rotation)
        values = self._heads(self.v_proj(x))
        if cache is not None:
            keys, values = cache.append(self.layer, keys, values)
        mixed = attend(queries, keys, values)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return output

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_size).transpose(1, 2)  # (B, heads, T, E)


class FeedForward(nn.Module):
    """SwiGLU: a gated hidden layer at each position."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.embedding_size, config.hidden_size, bias=False)
        self.up_proj = nn.Linear(config.embedding_size, config.hidden_size, bias=False)
        self.down_proj = nn.Linear(config.hidden_size, config.embedding_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        output: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output


class Layer(nn.Module):
    """Attention, then feed-forward, each normed before and added to the residual stream after."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.embedding_size, eps=config.norm_epsilon)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = nn.RMSNorm(config.embedding_size, eps=config.norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], cache: KeyValueCache | None) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x = x + self.self_attn(self.input_layernorm(x), rotation, cache)
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class Decoder(nn.Module):
    """Token ids to hidden states."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_layers))
        self.norm = nn.RMSNorm(config.embedding_size, eps=config.norm_epsilon)
        self.rotary = RotaryPositions(config)

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Hidden states (B, T, D) of `tokens` (B, T), which follow what `cache` holds."""
        length = tokens.shape[1]
        rotation = self.rotary(cache.length if cache else 0, length)
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, rotation, cache)
        if cache is not None:
            cache.length += length
        normed: Tensor = self.norm(x)
        return normed


class Llama(nn.Module):
    """The language model: the decoder, and its embeddings once more as the output layer."""

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self._initialize(torch.Generator().manual_seed(seed))

    @property
    def output_weight(self) -> Tensor:
        """The output layer (V, D)."""
        return self.model.embed_tokens.weight

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def new_cache(self, batch_size: int) -> KeyValueCache:
        """An empty cache for as many positions as the model has."""
        return KeyValueCache(self.config, batch_size, self.config.num_positions, self.output_weight)

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `tokens` (B, T)."""
        return F.linear(self.model(tokens, cache), self.output_weight)

    def next_logits(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Logits (B, V) of the token after the last of `tokens` (B, T), which follow what `cache` holds."""
        return F.linear(self.model(tokens, cache)[:, -1], self.output_weight)

    @torch.no_grad()
    def _initialize(self, generator: torch.Generator) -> None:
        """Normal weights; what writes to the residual stream smaller by its depth, as GPT-2 has it."""
        residual_std = INITIAL_STD / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                std = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else INITIAL_STD
                nn.init.normal_(parameter, std=std, generator=generator)
