"""The kinds of models: the one place that knows which there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.config import ModelConfig
from jobs.errors import DamagedError, InputError
from jobs.generation.context_decoder import InferenceContext
from jobs.generation.decoder import InferenceLlama
from jobs.generation.stream import InferenceModel
from jobs.model.context import AttentionConfig, ContextAttention, ContextConfig, ContextMlp, EmbeddingRegression
from jobs.model.language_model import DataShape, LanguageModel
from jobs.model.llama import Llama, LlamaConfig
from jobs.model_io import context_config, llama_config


@dataclass(frozen=True)
class Kind:
    """What there is to know of a kind of model; its configuration is what the weights' shapes follow from."""

    architecture: str
    """Its name in ``config.json``."""
    model: Callable[..., LanguageModel]
    """Makes a model of its configuration and a seed."""
    configure: Callable[[ModelConfig, DataShape], Any]
    """The configuration of a run's model."""
    write_config: Callable[[Any, int], dict[str, Any]]
    """The content of ``config.json`` but for the architecture, for a configuration and the end-of-text token."""
    read_config: Callable[[dict[str, Any], str], Any]
    """The configuration of such a content; the text names it in errors."""
    weight_shapes: Callable[[Any], dict[str, tuple[int, ...]]]
    """The tensors of a state dictionary, by name."""
    inference: Callable[[Any, str], InferenceModel]
    """The model as it generates, with the name of its arithmetic."""


KINDS: Mapping[str, Kind] = {
    "transformer": Kind(
        "LlamaForCausalLM",
        Llama,
        LlamaConfig.of,
        llama_config.hugging_face_config,
        llama_config.read_config,
        llama_config.weight_shapes,
        InferenceLlama,
    ),
    "context_mlp": Kind(
        "NightjarContextMlp",
        ContextMlp,
        ContextConfig.of,
        context_config.write_config,
        context_config.reader("context_mlp", ContextConfig),
        context_config.softmax_shapes,
        InferenceContext,
    ),
    "context_attention": Kind(
        "NightjarContextAttention",
        ContextAttention,
        AttentionConfig.of,
        context_config.write_config,
        context_config.reader("context_attention", AttentionConfig),
        context_config.softmax_shapes,
        InferenceContext,
    ),
    "embedding_regression": Kind(
        "NightjarEmbeddingRegression",
        EmbeddingRegression,
        ContextConfig.of,
        context_config.write_config,
        context_config.reader("embedding_regression", ContextConfig),
        context_config.regression_shapes,
        InferenceContext,
    ),
}


def build_model(settings: ModelConfig, shape: DataShape, seed: int = 0) -> LanguageModel:
    """The model that a run's settings ask for, with random weights."""
    kind = KINDS[settings.kind]
    return kind.model(kind.configure(settings, shape), seed)


def kind_of(model: LanguageModel) -> Kind:
    """The kind that a model is of."""
    return next(kind for kind in KINDS.values() if kind.model is type(model))


def for_generating(model: LanguageModel, dtype: str = "float32") -> InferenceModel:
    """The model as it is run for generating; `dtype` names the arithmetic of its matrix products.

    Raises:
        InputError: if it is `int8`, and the model not one for that.
    """
    if dtype == "int8" and not isinstance(model, Llama):
        raise InputError("generate.dtype=int8 is for model.kind=transformer alone: take float32 or bfloat16")
    return kind_of(model).inference(model, dtype)


def write_config(model: LanguageModel, end_of_text: int) -> dict[str, Any]:
    """The content of a model's ``config.json``."""
    kind = kind_of(model)
    return {"architectures": [kind.architecture], **kind.write_config(model.config, end_of_text)}


def read_config(data: bytes, where: str) -> tuple[Kind, Any]:
    """Read a ``config.json``: the kind of the model, and its configuration; `where` names it in errors.

    Raises:
        InputError: if it describes a model that none of ours is.
        DamagedError: if it does not describe a model.
    """
    try:
        values = json.loads(data)
        architectures = values["architectures"]
    except (ValueError, KeyError, TypeError):
        raise DamagedError(f"{where}: not the configuration of a model (no 'architectures')") from None
    kind = next((kind for kind in KINDS.values() if [kind.architecture] == architectures), None)
    if kind is None:
        known = ", ".join(each.architecture for each in KINDS.values())
        raise InputError(f"{where}: architecture {architectures} is not known here; known: {known}")
    return kind, kind.read_config(values, where)
