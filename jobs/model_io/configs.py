"""``config.json`` of the model folder: written from a model's configuration, and read back.

A Llama model is described in Hugging Face's terms, so that `transformers` opens it. Context models have the names of
our own settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from jobs.config import ModelConfig, first_wrong
from jobs.errors import DamagedError, InputError
from jobs.model.context import ContextConfig
from jobs.model.kinds import MODELS
from jobs.model.language_model import MAX_POSITIONS, MAX_TOKENS, DataShape, LanguageModel, checked_int
from jobs.model.llama import LlamaConfig

ARCHITECTURES: Mapping[str, type[LanguageModel]] = MappingProxyType(
    {
        "LlamaForCausalLM": MODELS["transformer"],
        "NightjarContextMlp": MODELS["context_mlp"],
        "NightjarContextAttention": MODELS["context_attention"],
        "NightjarEmbeddingRegression": MODELS["embedding_regression"],
    }
)
"""The models by their names in ``config.json``."""

_LLAMA_NAMES = {
    "vocab_size": "vocab_size",
    "num_positions": "max_position_embeddings",
    "num_layers": "num_hidden_layers",
    "embedding_size": "hidden_size",
    "hidden_size": "intermediate_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "rope_theta": "rope_theta",
    "norm_epsilon": "rms_norm_eps",
}
"""Hugging Face's name of each of our settings."""
_LLAMA_FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "rope_scaling": None,
}
"""The only values that our decoder supports of settings that other Llama models vary."""


def architecture_of(model: LanguageModel) -> str:
    """Return the name of the model's architecture in ``config.json``."""
    return next(name for name, model_class in ARCHITECTURES.items() if model_class is type(model))


def model_config(model: LanguageModel, end_of_text: int) -> dict[str, Any]:
    """Return the content of ``config.json``; `end_of_text` is the token that begins and ends a text."""
    llama = isinstance(model.config, LlamaConfig)
    return {
        "architectures": [architecture_of(model)],
        **(llama_values(model.config) if llama else {"model_type": "nightjar", **asdict(model.config)}),
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
        **({"use_cache": True} if llama else {}),
    }


def llama_values(config: LlamaConfig) -> dict[str, Any]:
    """Return the configuration of a Llama model in Hugging Face's terms."""
    return {
        "model_type": "llama",
        **{theirs: getattr(config, ours) for ours, theirs in _LLAMA_NAMES.items()},
        "head_dim": config.head_size,
        **_LLAMA_FIXED,
    }


def parse_model_config(data: bytes, where: str) -> tuple[type[LanguageModel], Any]:
    """Parse a ``config.json``; return the class of the model and its configuration.

    Args:
        data: The content of the file.
        where: The name of the file in error messages.

    Raises:
        InputError: if it describes a model that this project does not have.
        DamagedError: if it does not describe a model.
    """
    try:
        values = json.loads(data)
        architectures = values["architectures"]
    except (ValueError, KeyError, TypeError):
        raise DamagedError(f"{where}: not the configuration of a model (no 'architectures')") from None
    model_class = next((ours for name, ours in ARCHITECTURES.items() if [name] == architectures), None)
    if model_class is None:
        raise InputError(f"{where}: unknown architecture {architectures}; known are {', '.join(ARCHITECTURES)}")
    if model_class is MODELS["transformer"]:
        return model_class, _llama_config(values, where)
    return model_class, _context_config(model_class, values, where)


def _llama_config(values: dict[str, Any], where: str) -> LlamaConfig:
    """Parse the configuration of a Llama model; its sizes have the same limits as the settings of a run."""
    for name, value in _LLAMA_FIXED.items():
        if values.get(name, value) != value:
            raise InputError(f"{where}: {name} is {values[name]!r}; only {value!r} is supported")
    try:
        settings = {ours: values[theirs] for ours, theirs in _LLAMA_NAMES.items()}
        vocab_size = checked_int("vocab_size", settings.pop("vocab_size"), 1, MAX_TOKENS)
        num_positions = checked_int("max_position_embeddings", settings.pop("num_positions"), 1, MAX_POSITIONS)
        checked = ModelConfig(**settings).model_dump(include=set(settings))
        config = LlamaConfig(vocab_size, num_positions, **checked)
    except ValidationError as error:
        ours, _, reason = first_wrong(error).partition(": ")
        raise DamagedError(f"{where}: {_LLAMA_NAMES.get(ours, ours)}: {reason}") from None
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{where}: not the configuration of a Llama model ({error})") from None
    if values.get("head_dim", config.head_size) != config.head_size:
        raise InputError(
            f"{where}: head_dim is {values['head_dim']!r}; only hidden_size / num_attention_heads"
            f" ({config.head_size}) is supported"
        )
    return config


def _context_config(model_class: type[LanguageModel], values: dict[str, Any], where: str) -> ContextConfig:
    """Parse the configuration of a context model; its sizes have the same limits as the settings of a run."""
    kind = next(kind for kind, known in MODELS.items() if known is model_class)
    config_class: type[ContextConfig] = model_class.config_class
    try:
        shape = DataShape(**{each.name: values[each.name] for each in fields(DataShape)})
        names = {each.name for each in fields(config_class)} & ModelConfig.model_fields.keys()
        settings = ModelConfig.model_validate({"kind": kind, **{name: values[name] for name in names}})
    except ValidationError as error:
        raise DamagedError(f"{where}: {first_wrong(error)}") from None
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{where}: not the configuration of a model of kind {kind} ({error})") from None
    return config_class.of(settings, shape)
