"""The model folder: what `transformers` opens as a Llama model, and what this project loads again.

``config.json``, ``model.safetensors``, ``tokenizer.json``, ``tokenizer_config.json``, ``generation_config.json``, and
``_manifest.json``, which is written last. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jobs import lake
from jobs.errors import DamagedError, InputError
from jobs.model.llama import Llama, LlamaConfig
from jobs.paths import join
from jobs.tokens.tokenizer import END_OF_TEXT, Tokenizer

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
TOKENIZER_CONFIG, GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"

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


def save_model(folder_uri: str, model: Llama, tokenizer: Tokenizer) -> None:
    """Write a model folder in place of what is there."""
    lake.delete_folder(folder_uri)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    contents = {
        CONFIG: _to_json(hugging_face_config(model.config, tokenizer.end_of_text)),
        WEIGHTS: save(weights, {"format": "pt"}),
        TOKENIZER: tokenizer.json,
        TOKENIZER_CONFIG: _to_json(_tokenizer_config(model.config)),
        GENERATION_CONFIG: _to_json({"bos_token_id": tokenizer.end_of_text, "eos_token_id": tokenizer.end_of_text}),
    }
    files = tuple(lake.write_file(folder_uri, name, data) for name, data in contents.items())
    weights_hash = next(entry.sha256 for entry in files if entry.name == WEIGHTS)
    counts = {"num_parameters": model.num_parameters}
    lake.publish_manifest(folder_uri, lake.Manifest("model", weights_hash, files, counts))


def load_model(folder_uri: str) -> tuple[Llama, Tokenizer]:
    """Load a model folder; the model is on the CPU, in evaluation mode.

    Raises:
        InputError: if there is no model.
        DamagedError: if a file is missing, truncated or altered, or a tensor is missing or has another shape.
    """
    manifest = lake.read_manifest(folder_uri)
    if manifest is None:
        raise InputError(f"{folder_uri}: no model here (no _manifest.json); run the train step first")
    files = {entry.name: lake.read_file(folder_uri, entry) for entry in manifest.files}
    if missing := {CONFIG, WEIGHTS, TOKENIZER} - files.keys():
        raise DamagedError(f"{folder_uri}: the manifest does not list {', '.join(sorted(missing))}")
    model = Llama(_read_config(folder_uri, files[CONFIG]))
    _put_weights(folder_uri, model, files[WEIGHTS])
    tokenizer = Tokenizer.from_json(files[TOKENIZER], join(folder_uri, TOKENIZER))
    if tokenizer.vocab_size > model.config.vocab_size:
        raise DamagedError(
            f"{folder_uri}: {TOKENIZER} has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}"
        )
    return model.eval(), tokenizer


def hugging_face_config(config: LlamaConfig, end_of_text: int) -> dict[str, Any]:
    """The content of `config.json`."""
    shape = {theirs: getattr(config, ours) for ours, theirs in _NAMES.items()}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **shape,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
        "use_cache": True,
    }


def _tokenizer_config(config: LlamaConfig) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "model_max_length": config.num_positions,
        "clean_up_tokenization_spaces": False,
    }


def _read_config(folder_uri: str, data: bytes) -> LlamaConfig:
    where = join(folder_uri, CONFIG)
    try:
        values = json.loads(data)
        architectures = values["architectures"]
        settings = {ours: _positive(theirs, values[theirs]) for ours, theirs in _NAMES.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{where}: not the configuration of a Llama model ({error!r})") from None
    if architectures != ["LlamaForCausalLM"]:
        raise InputError(f"{where}: architecture {architectures} is not known here; LlamaForCausalLM is")
    return LlamaConfig(**settings)


def _positive(name: str, value: Any) -> Any:
    if not isinstance(value, (int, float)) or value <= 0:
        raise ValueError(f"{name} is {value!r}")
    return value


def _put_weights(folder_uri: str, model: Llama, data: bytes) -> None:
    where = join(folder_uri, WEIGHTS)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise DamagedError(f"{where}: not a safetensors file ({error})") from None
    expected = model.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        found, wanted = _shape(tensors, name), _shape(expected, name)
        if found != wanted:
            raise DamagedError(f"{where}: tensor {name} is {found}, the configuration asks for {wanted}")
    model.load_state_dict(tensors)


def _shape(tensors: dict[str, Tensor], name: str) -> str:
    return " x ".join(map(str, tensors[name].shape)) if name in tensors else "absent"


def _to_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
