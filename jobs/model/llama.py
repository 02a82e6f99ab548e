"""The transformer in Llama's architecture (Touvron et al. 2023, arXiv:2302.13971).

It has RMSNorm (arXiv:1910.07467) before each block, rotary positions (arXiv:2104.09864), SwiGLU (arXiv:2002.05202),
grouped queries (arXiv:2305.13245) and tied embeddings. Parameters have the names, shapes and conventions of Hugging
Face's `LlamaForCausalLM`, so both load the same state dictionary. This module is for training.
`jobs.generation.decoder` computes the same function for generation.

Shapes in comments: B sequences, T positions, D embedding size, H heads, K key-value heads, E = D / H, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch code
from torch import Tensor, nn

from jobs.config import ModelConfig
from jobs.model.language_model import DataShape, SoftmaxModel
from jobs.model.layers import RMSNorm, RotaryPositions, interleaved, rotate

INITIAL_STD = 0.02


@dataclass(frozen=True)
class LlamaConfig:
    """The settings that determine the shapes and the arithmetic of a Llama model."""

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
    def of(cls, config: ModelConfig, shape: DataShape) -> LlamaConfig:
        """Return the configuration of a model, made from a run's settings and the shape of the run's data."""
        settings = {each.name: getattr(config, each.name) for each in fields(cls)[2:]}
        return cls(shape.vocab_size, shape.num_positions, **settings)

    @property
    def head_size(self) -> int:
        """Return the number of features of one attention head."""
        return self.embedding_size // self.num_heads


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return causal attention (B, H, T, E) for queries (B, H, T, E), keys and values (B, K, T, E)."""
    if _explicit_is_faster(queries):
        return _attend_explicitly(queries, keys, values)
    grouped = keys.shape[1] < queries.shape[1]
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=grouped)


def _explicit_is_faster(queries: Tensor) -> bool:
    """Return whether explicit matrix products are faster than the fused kernel for these queries.

    They are faster if the backward pass is in bfloat16 on a CPU, and the attention scores fit in the caches. The fused
    kernel's backward pass then takes 4 times as long.
    """
    on_cpu = queries.requires_grad and queries.device.type == "cpu"
    return on_cpu and queries.dtype == torch.bfloat16 and queries.shape[2] <= 512


def _attend_explicitly(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    length, head_size = queries.shape[2:]
    groups = queries.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (keys, values))
    mask = torch.full((length, length), -math.inf, dtype=queries.dtype, device=queries.device).triu(1)
    q, k, v = (x.flatten(0, 1) for x in (queries, keys, values))  # (B H, T, E)
    scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=head_size**-0.5)  # (B H, T, T)
    return torch.bmm(scores.softmax(dim=-1), v).view_as(queries)


class Attention(nn.Module):
    """Causal self-attention; H / K query heads share one key-value head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_size = config.num_heads, config.num_kv_heads, config.head_size
        kv_size = config.num_kv_heads * config.head_size
        self.q_proj = nn.Linear(config.embedding_size, config.embedding_size, bias=False)
        self.k_proj = nn.Linear(config.embedding_size, kv_size, bias=False)
        self.v_proj = nn.Linear(config.embedding_size, kv_size, bias=False)
        self.o_proj = nn.Linear(config.embedding_size, config.embedding_size, bias=False)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Map `x` (B, T, D) to (B, T, D).

        `angles` (T, (H + K) E/2, 2) has the cosines and sines by which queries and keys are rotated.
        """
        pairs = (interleaved(matrix.weight, self.head_size) for matrix in (self.q_proj, self.k_proj))
        products = F.linear(x, torch.cat((*pairs, self.v_proj.weight)))
        heads = products.view(*x.shape[:2], -1, self.head_size)  # (B, T, H + 2 K, E)
        rotated = rotate(heads[:, :, : -self.num_kv_heads], angles)
        queries, keys = rotated[:, :, : self.num_heads], rotated[:, :, self.num_heads :]
        values = heads[:, :, -self.num_kv_heads :]
        mixed = attend(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
        output: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """A gated hidden layer at each position (SwiGLU)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.embedding_size, config.hidden_size, bias=False)
        self.up_proj = nn.Linear(config.embedding_size, config.hidden_size, bias=False)
        self.down_proj = nn.Linear(config.hidden_size, config.embedding_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        output: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output


class Layer(nn.Module):
    """One layer: attention, then feed-forward. Both read the normalized residual stream and add their output to it."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.embedding_size, config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.embedding_size, config.norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = x + self.self_attn(self.input_layernorm(x), angles)
        output: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return output


class Decoder(nn.Module):
    """The layers from token ids to hidden states."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.embedding_size, config.norm_epsilon)
        self.rotary = RotaryPositions(config.num_positions, config.head_size, config.rope_theta)
        self.num_rotated_heads = config.num_heads + config.num_kv_heads

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the hidden states (B, T, D) of `tokens` (B, T)."""
        angles = self.rotary(tokens.shape[1], self.num_rotated_heads)
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, angles)
        normed: Tensor = self.norm(x)
        return normed


class Llama(SoftmaxModel):
    """The language model: the decoder, whose embeddings are also the weights of the output layer."""

    config_class = LlamaConfig
    config: LlamaConfig
    model: Decoder

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.targets_per_window = config.num_positions
        self.model = Decoder(config)
        self._initialize(torch.Generator().manual_seed(seed))

    @property
    def embeddings(self) -> Tensor:
        """Return the token embeddings (V, D)."""
        return self.model.embed_tokens.weight

    def states_and_targets(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden states (B T, D) and the targets (B T) of `windows` (B, T + 1)."""
        hidden: Tensor = self.model(windows[:, :-1])
        return hidden.flatten(0, 1), windows[:, 1:].flatten()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, T, V) of the token after each of `tokens` (B, T)."""
        return F.linear(self.model(tokens), self.output_weight)

    @torch.no_grad()
    def _initialize(self, generator: torch.Generator) -> None:
        """Draw the matrices from normal distributions.

        As in GPT-2, the matrices that write to the residual stream get smaller values if the model has more layers.
        """
        residual_std = INITIAL_STD / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                std = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else INITIAL_STD
                nn.init.normal_(parameter, std=std, generator=generator)
