"""Writes and reads the model folder, from which `transformers` and this project open a model.

In memory a folder is a mapping from file names to bytes. The manifest is written last. No file is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jobs.errors import DamagedError, InputError
from jobs.lake import store, strict_json
from jobs.lake.layout import MANIFEST
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.models import CONFIG, TOKENIZER
from jobs.lake.uri import ending_of, join
from jobs.model.language_model import LanguageModel
from jobs.model_io.archive import unpack
from jobs.model_io.configs import Shapes, model_config, parse_model_config, weight_shapes
from jobs.tokenizer.definition import END_OF_TEXT
from jobs.tokenizer.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
GENERATION_CONFIG, CARD, TRAINING_STATS = "generation_config.json", "README.md", "training_stats.json"


def save_model(
    folder_uri: str, model: LanguageModel, tokenizer: Tokenizer, about: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """Write a model folder in place of an earlier one, and return its contents. `about` has further files to write."""
    contents = model_contents(model, tokenizer, about or {})
    store.write_folder(folder_uri, contents)
    return contents


def model_contents(model: LanguageModel, tokenizer: Tokenizer, about: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the contents of a model folder, including the manifest."""
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "model_max_length": model.config.num_positions,
        "clean_up_tokenization_spaces": False,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    contents = {
        CONFIG: to_json(model_config(model, tokenizer.end_of_text)),
        WEIGHTS: save(tensors, {"format": "pt"}),
        TOKENIZER: tokenizer.json,
        TOKENIZER_CONFIG: to_json(tokenizer_config),
        SPECIAL_TOKENS: to_json(special),
        GENERATION_CONFIG: to_json({"bos_token_id": tokenizer.end_of_text, "eos_token_id": tokenizer.end_of_text}),
        **about,
    }
    files = tuple(FileEntry.of(name, data) for name, data in contents.items())
    weights_hash = next(entry.sha256 for entry in files if entry.name == WEIGHTS)
    manifest = Manifest("model", weights_hash, files, {"num_parameters": model.num_parameters})
    return {**contents, MANIFEST: manifest.to_json()}


def read_contents(uri: str) -> dict[str, bytes]:
    """Return the contents of a model folder or of its zip file, checked by size and hash."""
    if ending_of(uri, (".zip",)):
        return unpack(uri)
    manifest = store.read_manifest(uri)
    if manifest is None:
        raise InputError(f"{uri}: no model here (no {MANIFEST}); run the train step first")
    files = {entry.name: store.read_file(uri, entry) for entry in manifest.files}
    return {**files, MANIFEST: store.read_bytes(join(uri, MANIFEST))}


def load_model(uri: str) -> tuple[LanguageModel, Tokenizer]:
    """Load the model, on the CPU in evaluation mode, and the tokenizer of a model folder or its zip file.

    Raises:
        InputError: if there is no model, or its architecture is unknown.
        DamagedError: if a file is missing, truncated or altered, or a tensor is missing or has a wrong shape.
    """
    return parse_model(read_contents(uri), uri)


def parse_model(contents: Mapping[str, bytes], uri: str) -> tuple[LanguageModel, Tokenizer]:
    """Build the model and the tokenizer from a model folder's `contents`.

    This raises the same errors as `load_model`. Their messages begin with `uri`.
    """
    if missing := {CONFIG, WEIGHTS, TOKENIZER} - contents.keys():
        raise DamagedError(f"{uri}: the manifest does not list {', '.join(sorted(missing))}")
    model_class, config = parse_model_config(contents[CONFIG], join(uri, CONFIG))
    tensors = _parse_weights(contents[WEIGHTS], join(uri, WEIGHTS), weight_shapes(model_class, config))
    tokenizer = Tokenizer(contents[TOKENIZER], join(uri, TOKENIZER))
    if tokenizer.vocab_size > config.vocab_size:
        raise DamagedError(
            f"{uri}: {TOKENIZER} has {tokenizer.vocab_size} tokens, but the model has only {config.vocab_size}"
        )
    model = model_class(config)
    model.load_state_dict(tensors)
    return model.eval(), tokenizer


def _parse_weights(data: bytes, where: str, shapes: Shapes) -> dict[str, Tensor]:
    """Return the tensors of ``model.safetensors``. Raise a DamagedError if names or shapes differ from `shapes`."""
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"{where}: not a safetensors file ({error})") from None
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(shapes.keys() | found.keys()):
        if found.get(name) != shapes.get(name):
            raise DamagedError(f"{where}: tensor {name} {_mismatch(found.get(name), shapes.get(name))}")
        if not tensors[name].is_floating_point():
            raise DamagedError(f"{where}: tensor {name} holds {tensors[name].dtype}, not floating point numbers")
    return tensors


def _mismatch(found: tuple[int, ...] | None, expected: tuple[int, ...] | None) -> str:
    if expected is None:
        return "does not belong to the model that config.json describes"
    size = " x ".join(map(str, expected))
    if found is None:
        return f"is missing; config.json requires it with {size} values"
    return f"has {' x '.join(map(str, found))} values, but config.json requires {size}"


def to_json(value: Mapping[str, Any]) -> bytes:
    """Return `value` as the content of an indented JSON file."""
    return strict_json.to_json(value, "model", ensure_ascii=False)
