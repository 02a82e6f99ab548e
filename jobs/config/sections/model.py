"""The kind of the model and its shape."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobs.config.sections.base import Section


class ModelConfig(Section):
    """The kind of the model and its shape."""

    kind: Literal["transformer", "context_mlp", "context_attention", "embedding_regression"] = "transformer"
    """`transformer`: a decoder like Llama, the choice for most texts. The others are small context models, which
    predict only the token after a window. `context_mlp`: dense layers over the embeddings of the window.
    `context_attention`: one self-attention layer, then dense layers. `embedding_regression`: dense layers that predict
    the next token's fixed embedding."""
    num_layers: int = Field(4, ge=1, le=200)
    """Number of layers of the transformer. More layers learn more and cost more time."""
    embedding_size: int = Field(256, ge=2, le=16_384)
    """Dimension of the embeddings, and width of the transformer's layers. It must be a multiple of 2 x num_heads."""
    hidden_size: int = Field(688, ge=1, le=65_536)
    """Width of the transformer's feed-forward blocks, usually 2.7 times embedding_size."""
    hidden_sizes: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field((128, 128), min_length=1)
    """Widths of a context model's dense layers, in their order."""
    num_heads: int = Field(4, ge=1, le=256)
    """Number of attention heads. embedding_size / num_heads is the width of a head, usually 64."""
    num_kv_heads: int = Field(4, ge=1, le=256)
    """Number of key and value heads of the transformer; it must divide num_heads. Fewer save memory while
    generating."""
    positions: Literal["rotary", "sinusoidal", "learned", "none"] = "rotary"
    """How context_attention represents the position of a token. The transformer's positions are always `rotary`, and
    the other kinds need none."""
    rope_theta: float = Field(10_000.0, gt=1)
    """Base of the wavelengths of rotary positions. Higher values suit windows of many thousand tokens."""
    norm_epsilon: float = Field(1e-5, gt=0)
    """Small number that RMSNorm adds to the mean square, so that it never divides by 0."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        rotary = self.kind == "transformer" or (self.kind == "context_attention" and self.positions == "rotary")
        if rotary and self.embedding_size % (2 * self.num_heads):
            raise ValueError(
                f"model.embedding_size ({self.embedding_size}) must be a multiple of twice model.num_heads"
                f" ({self.num_heads}): rotary positions turn pairs"
            )
        if self.kind == "context_attention" and self.embedding_size % self.num_heads:
            raise ValueError(
                f"model.num_heads ({self.num_heads}) must divide model.embedding_size ({self.embedding_size})"
            )
        if self.kind == "transformer" and self.num_heads % self.num_kv_heads:
            raise ValueError(f"model.num_kv_heads ({self.num_kv_heads}) must divide model.num_heads ({self.num_heads})")
        return self

    @model_validator(mode="after")
    def _transformers_rotate(self) -> Self:
        if self.kind == "transformer" and self.positions != "rotary":
            raise ValueError(f"model.positions ({self.positions}) must be rotary for model.kind=transformer")
        return self
