"""The ``config.json`` of a context model, written and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from pydantic import ValidationError

from jobs.config import ModelConfig
from jobs.config.resolve import first_wrong
from jobs.errors import DamagedError
from jobs.model.context import AttentionConfig, ContextConfig
from jobs.model.language_model import DataShape


def write_config(config: ContextConfig, end_of_text: int) -> dict[str, Any]:
    """The content of ``config.json``: our own names, and those by which every reader finds the special token."""
    return {
        "model_type": "nightjar",
        **asdict(config),
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
    }


def reader(kind: str, config_type: type[ContextConfig]) -> Callable[[dict[str, Any], str], ContextConfig]:
    """What reads the content of a ``config.json`` of a kind; its second argument names it in errors.

    The reader raises DamagedError if something is missing or out of range.
    """

    def read(values: dict[str, Any], where: str) -> ContextConfig:
        try:
            shape = DataShape(**{each.name: values[each.name] for each in fields(DataShape)})
            names = {each.name for each in fields(config_type)} & ModelConfig.model_fields.keys()
            settings = ModelConfig.model_validate({"kind": kind, **{name: values[name] for name in names}})
        except ValidationError as error:
            raise DamagedError(f"{where}: {first_wrong(error)}") from None
        except (KeyError, ValueError) as error:
            raise DamagedError(f"{where}: not the configuration of a model of kind {kind} ({error})") from None
        return config_type.of(settings, shape)

    return read


def _encoder_shapes(config: ContextConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a state dictionary, by name, but for the output layer."""
    in_sight = 1 if isinstance(config, AttentionConfig) else config.num_positions
    sizes = (in_sight * config.embedding_size, *config.hidden_sizes)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, config.embedding_size)}
    for index, (inputs, outputs) in enumerate(zip(sizes, config.hidden_sizes, strict=False)):
        shapes |= {f"model.dense.{index}.weight": (outputs, inputs), f"model.dense.{index}.bias": (outputs,)}
    if isinstance(config, AttentionConfig):
        square = (config.embedding_size, config.embedding_size)
        shapes |= {f"model.{name}_proj.weight": square for name in "qkvo"}
        if config.positions == "learned":
            shapes["model.positions.weight"] = (config.num_positions, config.embedding_size)
    return shapes


def softmax_shapes(config: ContextConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a model that ends in a softmax."""
    return _encoder_shapes(config) | {"lm_head.weight": (config.vocab_size, config.hidden_sizes[-1])}


def regression_shapes(config: ContextConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a model that ends in an embedding."""
    size = config.embedding_size
    return _encoder_shapes(config) | {"output.weight": (size, config.hidden_sizes[-1]), "output.bias": (size,)}
