"""The model folder: what `transformers` opens as a Llama model, and what this project loads again.

``config.json``, ``model.safetensors``, ``tokenizer.json``, ``tokenizer_config.json``, ``special_tokens_map.json``,
``generation_config.json``, a model card ``README.md``, ``training_stats.json``, and ``_manifest.json``, which is
written last. In memory it is a mapping of these names to bytes. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.layout import MANIFEST
from jobs.lake.uri import join
from jobs.model.kinds import read_config, write_config
from jobs.model.language_model import LanguageModel
from jobs.model_io.archive import unpack
from jobs.tokenizer.tokenizer import END_OF_TEXT, Tokenizer

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
GENERATION_CONFIG, CARD, TRAINING_STATS = "generation_config.json", "README.md", "training_stats.json"


def save_model(
    folder_uri: str, model: LanguageModel, tokenizer: Tokenizer, about: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """Write a model folder in place of what is there, and return its contents.

    Args:
        folder_uri: The folder.
        model: Its weights become ``model.safetensors``.
        tokenizer: Its ``tokenizer.json`` is taken as it is.
        about: Further files, such as the model card.
    """
    contents = model_contents(model, tokenizer, about or {})
    write_contents(folder_uri, contents)
    return contents


def model_contents(model: LanguageModel, tokenizer: Tokenizer, about: Mapping[str, bytes]) -> dict[str, bytes]:
    """The contents of a model folder, its manifest included."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    contents = {
        CONFIG: to_json(write_config(model, tokenizer.end_of_text)),
        WEIGHTS: save(weights, {"format": "pt"}),
        TOKENIZER: tokenizer.json,
        TOKENIZER_CONFIG: to_json(_tokenizer_config(model.config.num_positions, special)),
        SPECIAL_TOKENS: to_json(special),
        GENERATION_CONFIG: to_json({"bos_token_id": tokenizer.end_of_text, "eos_token_id": tokenizer.end_of_text}),
        **about,
    }
    files = tuple(_entry(name, data) for name, data in contents.items())
    weights_hash = next(entry.sha256 for entry in files if entry.name == WEIGHTS)
    manifest = store.Manifest("model", weights_hash, files, {"num_parameters": model.num_parameters})
    return {**contents, MANIFEST: store.manifest_bytes(manifest)}


def write_contents(folder_uri: str, contents: Mapping[str, bytes]) -> None:
    """Write a model folder in place of what is there; the manifest comes last."""
    store.delete_folder(folder_uri)
    for name, data in contents.items():
        if name != MANIFEST:
            store.write_bytes(join(folder_uri, name), data)
    store.publish(join(folder_uri, MANIFEST), contents[MANIFEST])


def read_contents(uri: str) -> dict[str, bytes]:
    """The contents of a model folder, or of a zip file of one, checked by size and hash.

    Raises:
        InputError: if there is no model.
        DamagedError: if a file is missing, truncated or altered.
    """
    if uri.endswith(".zip"):
        return unpack(uri)
    manifest = store.read_manifest(uri)
    if manifest is None:
        raise InputError(f"{uri}: no model here (no {MANIFEST}); run the train step first")
    files = {entry.name: store.read_file(uri, entry) for entry in manifest.files}
    return {**files, MANIFEST: store.read_bytes(join(uri, MANIFEST))}


def load_model(uri: str) -> tuple[LanguageModel, Tokenizer]:
    """Load a model folder or a zip file of one; the model is on the CPU, in evaluation mode.

    Raises:
        InputError: if there is no model, or one of another architecture.
        DamagedError: if a file is missing, truncated or altered, or a tensor is missing or has another shape.
    """
    return parse_model(read_contents(uri), uri)


def parse_model(contents: Mapping[str, bytes], uri: str) -> tuple[LanguageModel, Tokenizer]:
    """The model that a folder's `contents` describe; `uri` names them in errors. Raises as `load_model`."""
    if missing := {CONFIG, WEIGHTS, TOKENIZER} - contents.keys():
        raise DamagedError(f"{uri}: the manifest does not list {', '.join(sorted(missing))}")
    kind, config = read_config(contents[CONFIG], join(uri, CONFIG))
    tensors = _read_weights(contents[WEIGHTS], join(uri, WEIGHTS), kind.weight_shapes(config))
    tokenizer = Tokenizer.from_json(contents[TOKENIZER], join(uri, TOKENIZER))
    if tokenizer.vocab_size > config.vocab_size:
        raise DamagedError(f"{uri}: {TOKENIZER} has {tokenizer.vocab_size} tokens, the model {config.vocab_size}")
    model = kind.model(config)
    model.load_state_dict(tensors)
    return model.eval(), tokenizer


def to_json(value: Mapping[str, Any]) -> bytes:
    """The content of a JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _read_weights(data: bytes, where: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which must have just these `shapes`."""
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"{where}: not a safetensors file ({error})") from None
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(shapes.keys() | found.keys()):
        if found.get(name) != shapes.get(name):
            is_there, wanted = _written(found.get(name), "absent"), _written(shapes.get(name), "none of that name")
            raise DamagedError(f"{where}: tensor {name} is {is_there}, the configuration asks for {wanted}")
        if not tensors[name].is_floating_point():
            raise DamagedError(f"{where}: tensor {name} holds {tensors[name].dtype}, not floating point numbers")
    return tensors


def _written(shape: tuple[int, ...] | None, absent: str) -> str:
    return absent if shape is None else " x ".join(map(str, shape))


def _tokenizer_config(num_positions: int, special: Mapping[str, str]) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "model_max_length": num_positions,
        "clean_up_tokenization_spaces": False,
    }


def _entry(name: str, data: bytes) -> store.FileEntry:
    return store.FileEntry(name, len(data), hashlib.sha256(data).hexdigest())
