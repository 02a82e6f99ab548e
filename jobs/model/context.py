"""Models of a fixed context: they see all inputs of a window at once and predict the one token after it.

What the hand-made pipelines before this one had, made right: `ContextMlp` and `ContextAttention` end in a softmax over
the vocabulary, `EmbeddingRegression` in a vector that is to be the embedding of the next token.

A context does not reach over the end of a document: what stands there reads as end-of-text. So a prompt that is shorter
than the context, padded with end-of-text on its left, looks as the beginning of a document did in training.

Shapes in comments: n windows, C tokens of context, D embedding size, H last dense width, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812 - the name that all torch code knows it by
from torch import Tensor, nn

from jobs.config import ModelConfig
from jobs.model.language_model import DataShape, LanguageModel, SoftmaxModel, autocast
from jobs.model.layers import rotate
from jobs.model.llama import RotaryPositions
from jobs.model.loss import distance_and_hits
from jobs.model.positions import LearnedPositions, SinusoidalPositions

EMBEDDING_STD, OUTPUT_STD = 0.1, 0.02
CONTEXT_NORM = 2.0
"""Length of the vector of a context, long or short, whose embeddings have length 1."""


@dataclass(frozen=True)
class ContextConfig:
    """Everything that decides shapes and arithmetic."""

    vocab_size: int
    num_positions: int
    end_of_text: int
    embedding_size: int
    hidden_sizes: tuple[int, ...]

    @classmethod
    def of(cls, settings: ModelConfig, shape: DataShape) -> Self:
        """The run's model for its data."""
        own = {each.name: getattr(settings, each.name) for each in fields(cls)[3:]}
        return cls(shape.vocab_size, shape.num_positions, shape.end_of_text, **own)


@dataclass(frozen=True)
class AttentionConfig(ContextConfig):
    """With what attention needs besides."""

    num_heads: int
    positions: str
    rope_theta: float

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.embedding_size // self.num_heads


class ContextModel(LanguageModel):
    """What the three kinds have in common."""

    config: ContextConfig

    @property
    def targets_per_window(self) -> int:
        """The token after the window."""
        return 1

    def states(self, contexts: Tensor) -> Tensor:
        """The last dense layer's output (n, H) for contexts (n, C)."""
        output: Tensor = self.model(of_last_document(contexts, self.config.end_of_text))
        return output

    @abstractmethod
    def next_logits(self, contexts: Tensor) -> Tensor:
        """Logits (n, V), float32, of the token after each of `contexts` (n, C)."""


class ContextSoftmax(ContextModel, SoftmaxModel):
    """A context model with a softmax over the vocabulary; the output layer has no bias."""

    model: ConcatenatingEncoder | AttentionEncoder

    def __init__(self, config: ContextConfig, model: ConcatenatingEncoder | AttentionEncoder) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.lm_head = nn.Linear(config.hidden_sizes[-1], config.vocab_size, bias=False)

    @property
    def embeddings(self) -> Tensor:
        """The vectors of tokens (V, D)."""
        return self.model.embed_tokens.weight

    @property
    def output_weight(self) -> Tensor:
        """The output layer (V, H)."""
        return self.lm_head.weight

    def states_and_targets(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """What the output layer sees (n, H), and the tokens after the windows (n)."""
        return self.states(windows[:, :-1]), windows[:, -1]

    def next_logits(self, contexts: Tensor) -> Tensor:
        """Logits (n, V), float32, of the token after each of `contexts` (n, C)."""
        logits: Tensor = self.lm_head(self.states(contexts))
        return logits.float()


class ContextMlp(ContextSoftmax):
    """Embeddings of the context side by side, dense layers with ReLU, softmax (Bengio et al. 2003)."""

    def __init__(self, config: ContextConfig, seed: int = 0) -> None:
        embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        super().__init__(config, ConcatenatingEncoder(embedding, config))
        _initialize(self, seed)


class ContextAttention(ContextSoftmax):
    """Self-attention of the last token over the context, dense layers with ReLU, softmax."""

    def __init__(self, config: AttentionConfig, seed: int = 0) -> None:
        super().__init__(config, AttentionEncoder(config))
        _initialize(self, seed)


class EmbeddingRegression(ContextModel):
    """Embeddings of the context side by side, dense layers with ReLU, and a vector that is to be the next embedding.

    The embeddings are given, not trained: a target that is trained along makes all vectors equal. All have length 1,
    so no token is near to everything, and the nearest is the one with the largest inner product. The loss is the
    squared distance: the mean squared error of features whose mean square is 1.
    """

    loss_unit = "squared distance"
    model: ConcatenatingEncoder

    def __init__(self, config: ContextConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.model = ConcatenatingEncoder(FixedEmbedding(config.vocab_size, config.embedding_size), config)
        self.output = nn.Linear(config.hidden_sizes[-1], config.embedding_size)
        _initialize(self, seed)
        self.start_from(self.embeddings)

    @property
    def embeddings(self) -> Tensor:
        """The vectors of tokens (V, D)."""
        return self.model.embed_tokens.weight

    @property
    def output_weight(self) -> Tensor:
        """The output layer (D, H)."""
        return self.output.weight

    @torch.no_grad()
    def start_from(self, embeddings: Tensor) -> None:
        """Take `embeddings` (V, D), scaled to length 1."""
        self.embeddings.copy_(F.normalize(embeddings, dim=-1))

    def training_loss(self, windows: Tensor, dtype: torch.dtype) -> Tensor:
        """The squared distances of what is predicted to the targets' embeddings, summed."""
        predicted, targets = self._predict(windows, dtype)
        return (predicted - self.embeddings[targets]).square().sum()

    def score(self, windows: Tensor, dtype: torch.dtype) -> tuple[float, int]:
        """The summed squared distance, and how many targets have the nearest embedding."""
        return distance_and_hits(*self._predict(windows, dtype), self.embeddings)

    def next_logits(self, contexts: Tensor) -> Tensor:
        """Negative squared distances (n, V) to each embedding, as of a normal distribution with variance 1 / D."""
        distances = torch.cdist(self.output(self.states(contexts)).float(), self.embeddings)
        return distances.square() * (-self.config.embedding_size / 2)

    def _predict(self, windows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        with autocast(windows.device, dtype):
            predicted: Tensor = self.output(self.states(windows[:, :-1]))
        return predicted.to(self.embeddings.dtype), windows[:, -1]


class ConcatenatingEncoder(nn.Module):
    """The embeddings of a context side by side, then dense layers: a token's place is told by where it stands.

    What stands before the document is zeros: a hundred times the same vector would drown the few tokens after it. And
    long contexts are as long a vector as short ones: Adam moves every weight alike, so with one step the outputs of a
    context of 128 tokens would fly far beyond their target.
    """

    def __init__(self, embed_tokens: nn.Embedding | FixedEmbedding, config: ContextConfig) -> None:
        super().__init__()
        self.embed_tokens = embed_tokens
        self.end_of_text = config.end_of_text
        self.dense = _dense(config.num_positions * config.embedding_size, config.hidden_sizes)

    def forward(self, contexts: Tensor) -> Tensor:
        """(n, C) to (n, H)."""
        inside = contexts != self.end_of_text
        scale = CONTEXT_NORM * inside.sum(dim=1, keepdim=True).clamp(min=1).rsqrt()
        return _through(self.dense, (self.embed_tokens(contexts) * (inside * scale).unsqueeze(-1)).flatten(1))


class AttentionEncoder(nn.Module):
    """The last token looks at the context, what it sees is added to it, then come dense layers."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.num_heads = config.num_heads
        self.embed_tokens = nn.Embedding(config.vocab_size, size)
        self.positions = _positions(config)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(size, size, bias=False) for _ in range(4))
        self.dense = _dense(size, config.hidden_sizes)

    def forward(self, contexts: Tensor) -> Tensor:
        """(n, C) to (n, H)."""
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
    """Vectors of tokens that are not trained, but stored with the model."""

    weight: Tensor

    def __init__(self, vocab_size: int, size: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(vocab_size, size))

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, C) to (n, C, D)."""
        return F.embedding(tokens, self.weight)


def of_last_document(contexts: Tensor, end_of_text: int) -> Tensor:
    """`contexts` (n, C) with all that stands before the last end-of-text made end-of-text too."""
    ends_later = (contexts == end_of_text).flip(1).cumsum(1).flip(1) > 0
    return contexts.masked_fill(ends_later, end_of_text)


def _positions(config: AttentionConfig) -> nn.Module | None:
    if config.positions == "rotary":
        return RotaryPositions(config.num_positions, config.head_size, config.rope_theta)
    if config.positions == "sinusoidal":
        return SinusoidalPositions(config.num_positions, config.embedding_size)
    if config.positions == "learned":
        return LearnedPositions(config.num_positions, config.embedding_size)
    return None


def _dense(size: int, hidden_sizes: Sequence[int]) -> nn.ModuleList:
    sizes = (size, *hidden_sizes)
    return nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))


def _through(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers:
        x = F.relu(layer(x))
    return x


@torch.no_grad()
def _initialize(model: ContextModel, seed: int) -> None:
    """Small embeddings and output layers, dense layers after He et al. 2015 (arXiv:1502.01852)."""
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
