"""The ``config.json`` of a Llama model in Hugging Face's words, written and read."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from jobs.config import ModelConfig
from jobs.config.resolve import first_wrong
from jobs.errors import DamagedError, InputError
from jobs.model.language_model import MOST_POSITIONS, MOST_TOKENS, within
from jobs.model.llama import LlamaConfig

# Our name of each setting, and Hugging Face's.
_NAMES = {
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
# What our decoder does, where Llama models of others may do otherwise.
_FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "rope_scaling": None,
}


def hugging_face_config(config: LlamaConfig, end_of_text: int) -> dict[str, Any]:
    """The content of ``config.json``, but for the architecture's name."""
    return {
        "model_type": "llama",
        **{theirs: getattr(config, ours) for ours, theirs in _NAMES.items()},
        "head_dim": config.head_size,
        **_FIXED,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
        "use_cache": True,
    }


def read_config(values: dict[str, Any], where: str) -> LlamaConfig:
    """Read the content of a ``config.json``; `where` names it in errors.

    Raises:
        InputError: if it describes a model that our decoder is not.
        DamagedError: if it does not describe a Llama model.
    """
    for name, value in _FIXED.items():
        if values.get(name, value) != value:
            raise InputError(f"{where}: {name} is {values[name]!r}; models are opened here only with {value!r}")
    return _llama_config(values, where)


def weight_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a state dictionary, by name."""
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
    shapes: dict[str, tuple[int, ...]] = {
        f"model.layers.{index}.{name}.weight": shape
        for index in range(config.num_layers)
        for name, shape in layer.items()
    }
    return shapes | {"model.embed_tokens.weight": (config.vocab_size, size), "model.norm.weight": (size,)}


def _llama_config(values: dict[str, Any], where: str) -> LlamaConfig:
    """Check the sizes as those of a run are checked, before anything is made of them."""
    try:
        settings = {ours: values[theirs] for ours, theirs in _NAMES.items()}
        vocab_size = within("vocab_size", settings.pop("vocab_size"), 1, MOST_TOKENS)
        num_positions = within("max_position_embeddings", settings.pop("num_positions"), 1, MOST_POSITIONS)
        checked = ModelConfig(**settings).model_dump(include=set(settings))
        config = LlamaConfig(vocab_size, num_positions, **checked)
    except ValidationError as error:
        ours, _, reason = first_wrong(error).partition(": ")
        raise DamagedError(f"{where}: {_NAMES.get(ours, ours)}: {reason}") from None
    except (KeyError, ValueError) as error:
        raise DamagedError(f"{where}: not the configuration of a Llama model ({error})") from None
    if values.get("head_dim", config.head_size) != config.head_size:
        raise InputError(f"{where}: head_dim is {values['head_dim']!r}; models are opened here only with hidden_size"
                         f" / num_attention_heads ({config.head_size})")  # fmt: skip
    return config
