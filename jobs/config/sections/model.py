"""The kind of model and its shape."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobs.config.sections.base import Section


class ModelConfig(Section):
    """The kind of model and its shape. The kinds that are no transformer are called context models."""

    kind: Literal["transformer", "context_mlp", "context_attention", "embedding_regression"] = "transformer"
    """`transformer`: a decoder (Llama: RMSNorm, rotary positions, SwiGLU, tied embeddings). The others predict the one
    token after a window: dense layers over its embeddings side by side, with a softmax (`context_mlp`) or towards the
    token's fixed embedding (`embedding_regression`); or one self-attention, then dense layers (`context_attention`)."""
    num_layers: int = Field(4, ge=1, le=200)
    """Number of the transformer's layers."""
    embedding_size: int = Field(256, ge=2, le=16_384)
    """Width of embeddings, and of the transformer's residual stream."""
    hidden_size: int = Field(688, ge=1, le=65_536)
    """Width inside the transformer's feed-forward block."""
    hidden_sizes: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field((128, 128), min_length=1)
    """Widths of a context model's dense layers."""
    num_heads: int = Field(4, ge=1, le=256)
    """Number of query heads."""
    num_kv_heads: int = Field(4, ge=1, le=256)
    """Number of the transformer's key and value heads; query heads share them evenly."""
    positions: Literal["rotary", "sinusoidal", "learned", "none"] = "rotary"
    """How context_attention tells a token's place. The transformer's positions are rotary; where embeddings lie side by
    side, their place tells it."""
    rope_theta: float = Field(10_000.0, gt=1)
    """Base of the rotary positions' wavelengths."""
    norm_epsilon: float = Field(1e-5, gt=0)
    """Added to the mean square in RMSNorm."""

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
