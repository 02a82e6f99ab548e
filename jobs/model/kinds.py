"""The class of model for each value of the setting ``model.kind``."""

from __future__ import annotations

from jobs.config import ModelConfig
from jobs.model.context import ContextAttention, ContextMlp, EmbeddingRegression
from jobs.model.language_model import DataShape, LanguageModel
from jobs.model.llama import Llama

MODELS: dict[str, type[LanguageModel]] = {
    "transformer": Llama,
    "context_mlp": ContextMlp,
    "context_attention": ContextAttention,
    "embedding_regression": EmbeddingRegression,
}


def build_model(settings: ModelConfig, shape: DataShape, seed: int = 0) -> LanguageModel:
    """Return a model with random weights, built from a run's settings and the shape of the run's data."""
    model_class = MODELS[settings.kind]
    return model_class(model_class.config_class.of(settings, shape), seed)
