"""The shape of the model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.sections.base import Section


class ModelConfig(Section):
    """The kind of model and its shape."""

    kind: Literal["transformer"] = "transformer"
    """`transformer`: a decoder (Llama: RMSNorm, rotary positions, SwiGLU, tied embeddings)."""
    num_layers: int = Field(4, ge=1, le=200)
    """Number of decoder layers."""
    embedding_size: int = Field(256, ge=2, le=16_384)
    """Width of the residual stream."""
    hidden_size: int = Field(688, ge=1, le=65_536)
    """Width inside the feed-forward block."""
    num_heads: int = Field(4, ge=1, le=256)
    """Number of query heads."""
    num_kv_heads: int = Field(4, ge=1, le=256)
    """Number of key and value heads; query heads share them evenly."""
    rope_theta: float = Field(10_000.0, gt=1)
    """Base of the rotary positions' wavelengths."""
    norm_epsilon: float = Field(1e-5, gt=0)
    """Added to the mean square in RMSNorm."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.embedding_size % (2 * self.num_heads):
            raise ValueError(
                f"model.embedding_size ({self.embedding_size}) must be a multiple of twice model.num_heads"
                f" ({self.num_heads}): rotary positions turn pairs"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"model.num_kv_heads ({self.num_kv_heads}) must divide model.num_heads ({self.num_heads})")
        return self
