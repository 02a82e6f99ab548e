"""Reads settings from JSON files in the lake: a run's configuration, and the ``config.json`` of a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.config import Config
from jobs.config.effects import Facts, acts

ARCHITECTURES = {
    "LlamaForCausalLM": "transformer",
    "NightjarContextMlp": "context_mlp",
    "NightjarContextAttention": "context_attention",
    "NightjarEmbeddingRegression": "embedding_regression",
}
"""A dict from the architecture in a trained model's ``config.json`` to the kind of the model (`model.kind`)."""

LLAMA_NAMES = {
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
"""Names of a transformer's properties. The keys are this project's names, and the values are Hugging Face's names."""

_MAY_DIFFER = ("model.rope_theta", "model.norm_epsilon")
"""Settings in which a run may differ from the stored model, because the weights can be used with other values, too.
For example, a larger `rope_theta` suits longer windows."""


def differing_settings(config: Config, stored: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each setting that prevents a run from starting with the weights of a stored model.

    Each item is the dotted key, the stored model's value and the run's value. `stored` is the content of the stored
    model's ``config.json``.
    """
    model, kind = config.model, _kind_of(stored)
    if kind != model.kind:
        yield "model.kind", kind, model.kind
        return
    names = LLAMA_NAMES if kind == "transformer" else {}
    for name in type(model).model_fields:
        key, theirs = f"model.{name}", stored.get(names.get(name, name))
        ours = list(value) if isinstance(value := getattr(model, name), tuple) else value
        is_needed = acts(config, key, Facts()) and key not in _MAY_DIFFER and name != "kind"
        if is_needed and theirs is not None and theirs != ours:
            yield key, theirs, ours
    has_positions = kind in ("context_mlp", "embedding_regression") or (
        kind == "context_attention" and model.positions == "learned"
    )
    if has_positions and stored.get("num_positions") != config.windows.size:
        yield "windows.size", stored.get("num_positions"), config.windows.size


def _kind_of(stored: Mapping[str, Any]) -> Any:
    """Return the kind of a stored model. If the kind is not supported, return the name of the model's architecture.

    Return None if `stored` does not name an architecture.
    """
    (architecture,) = stored.get("architectures") or [None]
    return ARCHITECTURES.get(str(architecture), architecture)


def kind_and_shape(stored: Mapping[str, Any]) -> tuple[Any, dict[str, int]]:
    """Return the kind of a stored model and, if it is a transformer, its `embedding_size` and `hidden_size`.

    The second result is a dict, which is empty for other kinds. `stored` is the content of the stored model's
    ``config.json``.
    """
    kind = _kind_of(stored)
    names = ("embedding_size", "hidden_size") if kind == "transformer" else ()
    return kind, {name: int(stored[LLAMA_NAMES[name]]) for name in names}


def get(stored: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, or a whole section, of a stored configuration. Return None if it is missing."""
    value: Any = stored
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
