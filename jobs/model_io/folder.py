"""The model folder: the files from which `transformers` and this project open a model.

``config.json``, ``model.safetensors``, ``tokenizer.json``, ``tokenizer_config.json``, ``special_tokens_map.json``,
``generation_config.json``, the model card ``README.md``, ``training_stats.json``, and ``_manifest.json``, which is
written last. In memory a folder is a mapping from these names to bytes. No file is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.layout import MANIFEST
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.uri import join
from jobs.model.language_model import LanguageModel
from jobs.model_io.archive import unpack
from jobs.model_io.configs import model_config, parse_model_config
from jobs.model_io.weights import parse_weights, weight_shapes, weights_file
from jobs.tokenizer.tokenizer import END_OF_TEXT, Tokenizer

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
GENERATION_CONFIG, CARD, TRAINING_STATS = "generation_config.json", "README.md", "training_stats.json"


def save_model(
    folder_uri: str, model: LanguageModel, tokenizer: Tokenizer, about: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """Write a model folder in place of an earlier one, and return its contents.

    Args:
        folder_uri: The folder.
        model: The model, whose weights become ``model.safetensors``.
        tokenizer: The tokenizer, whose ``tokenizer.json`` is copied.
        about: Further files by name, such as the model card.
    """
    contents = model_contents(model, tokenizer, about or {})
    write_contents(folder_uri, contents)
    return contents


def model_contents(model: LanguageModel, tokenizer: Tokenizer, about: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the contents of a model folder, including the manifest."""
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    contents = {
        CONFIG: to_json(model_config(model, tokenizer.end_of_text)),
        WEIGHTS: weights_file(model),
        TOKENIZER: tokenizer.json,
        TOKENIZER_CONFIG: to_json(_tokenizer_config(model.config.num_positions, special)),
        SPECIAL_TOKENS: to_json(special),
        GENERATION_CONFIG: to_json({"bos_token_id": tokenizer.end_of_text, "eos_token_id": tokenizer.end_of_text}),
        **about,
    }
    files = tuple(FileEntry.of(name, data) for name, data in contents.items())
    weights_hash = next(entry.sha256 for entry in files if entry.name == WEIGHTS)
    manifest = Manifest("model", weights_hash, files, {"num_parameters": model.num_parameters})
    return {**contents, MANIFEST: manifest.to_json()}


def write_contents(folder_uri: str, contents: Mapping[str, bytes]) -> None:
    """Write the contents of a model folder in place of an earlier one, the manifest last."""
    store.delete_folder(folder_uri)
    for name, data in contents.items():
        if name != MANIFEST:
            store.write_bytes(join(folder_uri, name), data)
    store.publish(join(folder_uri, MANIFEST), contents[MANIFEST])


def read_contents(uri: str) -> dict[str, bytes]:
    """Return the contents of a model folder or of its zip file, checked by size and hash.

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
    """Load the model and the tokenizer of a model folder or its zip file.

    Returns:
        The model on the CPU in evaluation mode, and its tokenizer.

    Raises:
        InputError: if there is no model, or its architecture is unknown.
        DamagedError: if a file is missing, truncated or altered, or a tensor is missing or has a wrong shape.
    """
    return parse_model(read_contents(uri), uri)


def parse_model(contents: Mapping[str, bytes], uri: str) -> tuple[LanguageModel, Tokenizer]:
    """Build the model and the tokenizer from a folder's `contents`; raise as `load_model`, and name `uri` in errors."""
    if missing := {CONFIG, WEIGHTS, TOKENIZER} - contents.keys():
        raise DamagedError(f"{uri}: the manifest does not list {', '.join(sorted(missing))}")
    model_class, config = parse_model_config(contents[CONFIG], join(uri, CONFIG))
    tensors = parse_weights(contents[WEIGHTS], join(uri, WEIGHTS), weight_shapes(model_class, config))
    tokenizer = Tokenizer(contents[TOKENIZER], join(uri, TOKENIZER))
    if tokenizer.vocab_size > config.vocab_size:
        raise DamagedError(
            f"{uri}: {TOKENIZER} has {tokenizer.vocab_size} tokens, but the model has {config.vocab_size}"
        )
    model = model_class(config)
    model.load_state_dict(tensors)
    return model.eval(), tokenizer


def to_json(value: Mapping[str, Any]) -> bytes:
    """Return the content of an indented JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _tokenizer_config(num_positions: int, special: Mapping[str, str]) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "model_max_length": num_positions,
        "clean_up_tokenization_spaces": False,
    }
