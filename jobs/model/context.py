"""Models with a fixed context: they read all inputs of a window at once and predict the one token that follows.

A context contains tokens of one document only: tokens of earlier documents are replaced by end-of-text.

Shapes in comments: n windows, C tokens of context, D embedding size, H last dense width, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import ClassVar, Self

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch code
from torch import Tensor, nn

from jobs.config import ModelConfig
from jobs.model.language_model import DataShape, LanguageModel, SoftmaxModel, autocast
from jobs.model.layers import LearnedPositions, RotaryPositions, SinusoidalPositions, rotate
from jobs.model.loss import distance_and_hits

EMBEDDING_STD, OUTPUT_STD = 0.1, 0.02
CONTEXT_NORM = 2.0
"""Norm of the concatenated embeddings of a context, whatever its length, if each embedding has norm 1."""


@dataclass(frozen=True)
class ContextConfig:
    """The settings that determine the shapes and the arithmetic of a context model."""

    vocab_size: int
    num_positions: int
    end_of_text: int
    embedding_size: int
    hidden_sizes: tuple[int, ...]

    @classmethod
    def of(cls, settings: ModelConfig, shape: DataShape) -> Self:
        """Return the configuration of a model, made from a run's settings and the shape of the run's data."""
        own = {each.name: getattr(settings, each.name) for each in fields(cls)[3:]}
        return cls(shape.vocab_size, shape.num_positions, shape.end_of_text, **own)


@dataclass(frozen=True)
class AttentionConfig(ContextConfig):
    """The settings of a context model with attention."""

    num_heads: int
    positions: str
    rope_theta: float

    @property
    def head_size(self) -> int:
        """Return the number of features of one attention head."""
        return self.embedding_size // self.num_heads


class ContextModel(LanguageModel):
    """The base of the context models."""

    config_class: ClassVar[type[ContextConfig]] = ContextConfig
    targets_per_window = 1
    config: ContextConfig
    model: ConcatenatingEncoder | AttentionEncoder

    @property
    def embeddings(self) -> Tensor:
        """Return the token embeddings (V, D)."""
        return self.model.embed_tokens.weight

    def states(self, contexts: Tensor) -> Tensor:
        """Return the output of the last dense layer (n, H) for contexts (n, C)."""
        output: Tensor = self.model(of_last_document(contexts, self.config.end_of_text))
        return output

    @abstractmethod
    def next_logits(self, contexts: Tensor) -> Tensor:
        """Return the logits (n, V), float32, of the token after each of `contexts` (n, C)."""


class ContextSoftmax(ContextModel, SoftmaxModel):
    """A context model with a softmax over the vocabulary; the output layer has no bias."""

    def __init__(self, config: ContextConfig, model: ConcatenatingEncoder | AttentionEncoder) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.lm_head = nn.Linear(config.hidden_sizes[-1], config.vocab_size, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """Return the weights of the output layer (V, H)."""
        return self.lm_head.weight

    def states_and_targets(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the output layer (n, H) and the target token of each window (n)."""
        return self.states(windows[:, :-1]), windows[:, -1]

    def next_logits(self, contexts: Tensor) -> Tensor:
        """Return the logits (n, V), float32, of the token after each of `contexts` (n, C)."""
        logits: Tensor = self.lm_head(self.states(contexts))
        return logits.float()


class ContextMlp(ContextSoftmax):
    """A model that applies dense layers with ReLU and a softmax to the concatenated embeddings (Bengio et al. 2003)."""

    def __init__(self, config: ContextConfig, seed: int = 0) -> None:
        embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        super().__init__(config, ConcatenatingEncoder(embedding, config))
        _initialize(self, seed)


class ContextAttention(ContextSoftmax):
    """A model in which the last token attends to the context, followed by dense layers with ReLU and a softmax."""

    config_class = AttentionConfig

    def __init__(self, config: AttentionConfig, seed: int = 0) -> None:
        super().__init__(config, AttentionEncoder(config))
        _initialize(self, seed)


class EmbeddingRegression(ContextModel):
    """A model that predicts the next token's embedding from the concatenated embeddings of the context.

    It has dense layers with ReLU. The embeddings are fixed, since trainable targets would all become equal. Every
    embedding has norm 1, so the embedding nearest to a prediction has the largest inner product with the prediction.
    The loss is the squared distance between the prediction and the embedding of the target.
    """

    loss_unit = "squared distance"
    model: ConcatenatingEncoder

    def __init__(self, config: ContextConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.model = ConcatenatingEncoder(FixedEmbedding(config.vocab_size, config.embedding_size), config)
        self.output = nn.Linear(config.hidden_sizes[-1], config.embedding_size)
        _initialize(self, seed)
        self.set_embeddings(self.embeddings)

    @property
    def output_weight(self) -> Tensor:
        """Return the weights of the output layer (D, H)."""
        return self.output.weight

    @torch.no_grad()
    def set_embeddings(self, embeddings: Tensor) -> None:
        """Set the token embeddings to `embeddings` (V, D), each scaled to norm 1."""
        self.embeddings.copy_(F.normalize(embeddings, dim=-1))

    def training_loss(self, windows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the differentiable sum of the squared distances from predictions to their targets' embeddings."""
        predicted, targets = self._predict(windows, dtype)
        return (predicted - self.embeddings[targets]).square().sum()

    def score(self, windows: Tensor, dtype: torch.dtype) -> tuple[float, int]:
        """Return the summed squared distance, and the number of predictions whose nearest embedding is the target's."""
        return distance_and_hits(*self._predict(windows, dtype), self.embeddings)

    @torch.no_grad()
    def loss_of_each_target(self, windows: Tensor) -> Tensor:
        """Return the squared distances (n, 1) from the predictions to the embeddings of their targets."""
        predicted, targets = self._predict(windows, torch.float32)
        return (predicted - self.embeddings[targets]).square().sum(dim=1, keepdim=True)

    def next_logits(self, contexts: Tensor) -> Tensor:
        """Return logits (n, V), computed from the squared distances of each prediction to all embeddings.

        Up to a constant, the logits are the log densities of a normal distribution around the prediction, with
        variance 1 / D in each dimension.
        """
        distances = torch.cdist(self.output(self.states(contexts)).float(), self.embeddings)
        return distances.square() * (-self.config.embedding_size / 2)

    def _predict(self, windows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        with autocast(windows.device, dtype):
            predicted: Tensor = self.output(self.states(windows[:, :-1]))
        return predicted.to(self.embeddings.dtype), windows[:, -1]


class ConcatenatingEncoder(nn.Module):
    """An encoder that concatenates the embeddings of a context and applies dense layers.

    Positions before the document's first token are zeros, since many copies of the end-of-text vector would outweigh
    a few tokens. Short and long contexts are scaled to the same norm. Without scaling, the first steps would
    change the outputs far too much for a context of 128 tokens, because Adam changes all weights by similar amounts.
    """

    def __init__(self, embed_tokens: nn.Embedding | FixedEmbedding, config: ContextConfig) -> None:
        super().__init__()
        self.embed_tokens = embed_tokens
        self.end_of_text = config.end_of_text
        self.dense = _dense(config.num_positions * config.embedding_size, config.hidden_sizes)

    def forward(self, contexts: Tensor) -> Tensor:
        """Map contexts (n, C) to states (n, H)."""
        inside = contexts != self.end_of_text
        scale = CONTEXT_NORM * inside.sum(dim=1, keepdim=True).clamp(min=1).rsqrt()
        return _through(self.dense, (self.embed_tokens(contexts) * (inside * scale).unsqueeze(-1)).flatten(1))


class AttentionEncoder(nn.Module):
    """An encoder in which the last token attends to the context, with a residual connection. Dense layers follow."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.num_heads = config.num_heads
        self.embed_tokens = nn.Embedding(config.vocab_size, size)
        self.positions = _positions(config)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(size, size, bias=False) for _ in range(4))
        self.dense = _dense(size, config.hidden_sizes)

    def forward(self, contexts: Tensor) -> Tensor:
        """Map contexts (n, C) to states (n, H)."""
        x = self.embed_tokens(contexts)
        if isinstance(self.positions, SinusoidalPositions | LearnedPositions):
            x = self.positions(x)
        last = x[:, -1:]
        queries, keys, values = self.q_proj(last), self.k_proj(x), self.v_proj(x)
        if isinstance(self.positions, RotaryPositions):
            angles = self.positions(contexts.shape[1], self.num_heads)
            queries, keys = rotate(queries, angles[-1:]), rotate(keys, angles)
        mixed = F.scaled_dot_product_attention(self._heads(queries), self._heads(keys), self._heads(values))
        return _through(self.dense, (last + self.o_proj(mixed.transpose(1, 2).flatten(2))).squeeze(1))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)  # (n, heads, C, D / heads)


class FixedEmbedding(nn.Module):
    """Token embeddings that are not trained. They are part of the state dictionary."""

    weight: Tensor

    def __init__(self, vocab_size: int, size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(vocab_size, size))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (n, C) to vectors (n, C, D)."""
        return F.embedding(tokens, self.weight)


def of_last_document(contexts: Tensor, end_of_text: int) -> Tensor:
    """Return `contexts` (n, C) with all tokens before the last end-of-text replaced by end-of-text."""
    ends_later = (contexts == end_of_text).flip(1).cumsum(1).flip(1) > 0
    return contexts.masked_fill(ends_later, end_of_text)


def _positions(config: AttentionConfig) -> nn.Module | None:
    if config.positions == "rotary":
        return RotaryPositions(config.num_positions, config.head_size, config.rope_theta)
    added = {"sinusoidal": SinusoidalPositions, "learned": LearnedPositions}.get(config.positions)
    return added(config.num_positions, config.embedding_size) if added else None


def _dense(size: int, hidden_sizes: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(*pair) for pair in pairwise((size, *hidden_sizes)))


def _through(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers:
        x = F.relu(layer(x))
    return x


@torch.no_grad()
def _initialize(model: ContextModel, seed: int) -> None:
    """Draw small values for embeddings and output layers; draw dense layers as in He et al. 2015 (arXiv:1502.01852)."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        if "embed_tokens" in name:
            weight.normal_(std=EMBEDDING_STD, generator=generator)
        elif name.endswith("bias"):
            weight.zero_()
        elif ".dense." in name:
            weight.normal_(std=(2 / weight.shape[1]) ** 0.5, generator=generator)
        elif "_proj" in name:
            weight.normal_(std=weight.shape[1] ** -0.5, generator=generator)
        elif name.startswith(("lm_head", "output")) or name.endswith("positions.weight"):
            weight.normal_(std=OUTPUT_STD, generator=generator)
