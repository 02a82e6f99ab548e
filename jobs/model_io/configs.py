"""Writes and reads ``config.json`` of the model folder, and derives the shapes of a model's tensors.

A Llama model is described with Hugging Face's names, a context model with the names of this project's settings. The
sizes in a file are checked against the same limits as the settings of a run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from pydantic import ValidationError

from jobs.config import ModelConfig, first_wrong
from jobs.config.stored import ARCHITECTURES, LLAMA_NAMES
from jobs.errors import DamagedError, InputError
from jobs.model.context import AttentionConfig, ContextConfig, EmbeddingRegression
from jobs.model.kinds import MODELS
from jobs.model.language_model import MAX_POSITIONS, MAX_TOKENS, DataShape, LanguageModel, checked_int
from jobs.model.llama import LlamaConfig

_LLAMA_FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "rope_scaling": None,
}
"""Values in ``config.json`` that may differ between Llama models. This project's decoder supports only these values."""

Shapes = dict[str, tuple[int, ...]]
"""A dict from the names of tensors in a state dictionary to their shapes."""


def architecture_of(model: LanguageModel) -> str:
    """Return the name of the model's architecture in ``config.json``."""
    return next(name for name, kind in ARCHITECTURES.items() if MODELS[kind] is type(model))


def model_config(model: LanguageModel, end_of_text: int) -> dict[str, Any]:
    """Return the content of ``config.json``. `end_of_text` is the id of the token that begins and ends a text."""
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
    """Return the configuration of a Llama model with Hugging Face's names."""
    return {
        "model_type": "llama",
        **{theirs: getattr(config, ours) for ours, theirs in LLAMA_NAMES.items()},
        "head_dim": config.head_size,
        **_LLAMA_FIXED,
    }


def parse_model_config(data: bytes, where: str) -> tuple[type[LanguageModel], Any]:
    """Parse ``config.json``, and return the model's class and configuration. Error messages begin with `where`.

    Raises:
        InputError: if the file describes a model that this project does not support.
        DamagedError: if the file does not describe a model.
    """
    try:
        values = json.loads(data)
        architectures = values["architectures"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedError(f"{where}: not the configuration of a model (no key 'architectures')") from None
    kind = next((kind for name, kind in ARCHITECTURES.items() if [name] == architectures), None)
    if kind is None:
        raise InputError(f"{where}: unknown architecture {architectures}; known are {', '.join(ARCHITECTURES)}")
    if kind == "transformer":
        return MODELS[kind], _llama_config(values, where)
    return MODELS[kind], _context_config(kind, values, where)


def _llama_config(values: dict[str, Any], where: str) -> LlamaConfig:
    for name, value in _LLAMA_FIXED.items():
        if values.get(name, value) != value:
            raise InputError(f"{where}: {name} is {values[name]!r}; only {value!r} is supported")
    try:
        settings = {ours: values[theirs] for ours, theirs in LLAMA_NAMES.items()}
        vocab_size = checked_int("vocab_size", settings.pop("vocab_size"), 1, MAX_TOKENS)
        num_positions = checked_int("max_position_embeddings", settings.pop("num_positions"), 1, MAX_POSITIONS)
        checked = ModelConfig(**settings).model_dump(include=set(settings))
        config = LlamaConfig(vocab_size, num_positions, **checked)
    except ValidationError as error:
        ours, _, reason = first_wrong(error).partition(": ")
        raise DamagedError(f"{where}: {LLAMA_NAMES.get(ours, ours)}: {reason}") from None
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{where}: not the configuration of a Llama model ({error})") from None
    if values.get("head_dim", config.head_size) != config.head_size:
        raise InputError(
            f"{where}: head_dim is {values['head_dim']!r}; only hidden_size / num_attention_heads"
            f" ({config.head_size}) is supported"
        )
    return config


def _context_config(kind: str, values: dict[str, Any], where: str) -> ContextConfig:
    config_class: type[ContextConfig] = MODELS[kind].config_class
    try:
        shape = DataShape(**{each.name: values[each.name] for each in fields(DataShape)})
        names = {each.name for each in fields(config_class)} & ModelConfig.model_fields.keys()
        settings = ModelConfig.model_validate({"kind": kind, **{name: values[name] for name in names}})
    except ValidationError as error:
        raise DamagedError(f"{where}: {first_wrong(error)}") from None
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{where}: not the configuration of a model of kind {kind} ({error})") from None
    return config_class.of(settings, shape)


def weight_shapes(model_class: type[LanguageModel], config: Any) -> Shapes:
    """Return the shapes of a model's tensors. The model is not built, since it may not fit in memory."""
    if isinstance(config, LlamaConfig):
        return _llama_shapes(config)
    last = config.hidden_sizes[-1]
    if issubclass(model_class, EmbeddingRegression):
        size = config.embedding_size
        return _encoder_shapes(config) | {"output.weight": (size, last), "output.bias": (size,)}
    return _encoder_shapes(config) | {"lm_head.weight": (config.vocab_size, last)}


def _llama_shapes(config: LlamaConfig) -> Shapes:
    size, hidden = config.embedding_size, config.hidden_size
    kv_size = config.num_kv_heads * config.head_size
    layer = {
        "input_layernorm": (size,),
        "self_attn.q_proj": (size, size),
        "self_attn.k_proj": (kv_size, size),
        "self_attn.v_proj": (kv_size, size),
        "self_attn.o_proj": (size, size),
        "post_attention_layernorm": (size,),
        "mlp.gate_proj": (hidden, size),
        "mlp.up_proj": (hidden, size),
        "mlp.down_proj": (size, hidden),
    }
    shapes: Shapes = {
        f"model.layers.{index}.{name}.weight": shape
        for index in range(config.num_layers)
        for name, shape in layer.items()
    }
    return shapes | {"model.embed_tokens.weight": (config.vocab_size, size), "model.norm.weight": (size,)}


def _encoder_shapes(config: ContextConfig) -> Shapes:
    num_inputs = 1 if isinstance(config, AttentionConfig) else config.num_positions
    sizes = (num_inputs * config.embedding_size, *config.hidden_sizes)
    shapes: Shapes = {"model.embed_tokens.weight": (config.vocab_size, config.embedding_size)}
    for index, (inputs, outputs) in enumerate(zip(sizes, config.hidden_sizes, strict=False)):
        shapes |= {f"model.dense.{index}.weight": (outputs, inputs), f"model.dense.{index}.bias": (outputs,)}
    if isinstance(config, AttentionConfig):
        square = (config.embedding_size, config.embedding_size)
        shapes |= {f"model.{name}_proj.weight": square for name in "qkvo"}
        if config.positions == "learned":
            shapes["model.positions.weight"] = (config.num_positions, config.embedding_size)
    return shapes
