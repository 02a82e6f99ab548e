"""Checks the inputs that a run's settings name besides the corpus: prompts, tokenizer, embeddings, an earlier model.

Airflow's preflight and `jobs run` make these checks before anything else, so only small files are read. The checks that
need the libraries of the steps are in `jobs.training.inputs`. They, too, are made before any text is tokenized.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.config import Config
from jobs.config.prompts import read_prompts
from jobs.config.sections.model import CHAMPION_OR_SCRATCH, EMBED
from jobs.config.stored import ARCHITECTURES, differing_settings, kind_and_shape
from jobs.errors import DamagedError, InputError
from jobs.lake.champion import CHAMPION, champions_pipeline, read_champion
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.models import CONFIG, check_complete, find_model, read_model_file
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import join, to_uri

TRAIN, INHERIT = "train", "inherit"
"""The two values of `tokenize.tokenizer` that are not the path or URI of a tokenizer."""


def check_inputs(config: Config, lake: Lake, store: Store = ENVIRONMENT) -> tuple[tuple[str, ...], str | None]:
    """Check that a run's input files and models exist, and that the models fit the run's settings.

    Returns:
        The prompts, and the URI of the model to start from (`train.init`) or to use (`use.model`). The URI is None if
        training starts from random weights.

    Raises:
        InputError: if a check fails. The message names the setting, and says what is wrong and what to do.
    """
    prompts = read_prompts(config.generate, store.read_bytes) if "generate" in config.steps else ()
    if not config.trains:
        return prompts, check_used(config, lake, store)
    for setting, uri in named_files(config):
        try:
            found = store.exists(uri) or (setting == "train.embeddings" and store.exists(join(uri, MANIFEST)))
        except OSError as error:
            raise InputError(f"{setting}: {uri} cannot be read ({error.strerror or error}); check the path") from None
        if not found:
            raise InputError(f"{setting}: {uri} cannot be read (no such file); check the path")
    start = find_start(config.train.init, lake, store)
    if start is not None:
        check_model(config, start, store)
    return prompts, start


def named_files(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting whose value is a file, and the file's URI.

    The prompts file is not among them, because `check_inputs` reads it.
    """
    if not config.trains:
        return
    if config.tokenize.tokenizer not in (TRAIN, INHERIT):
        yield "tokenize.tokenizer", to_uri(config.tokenize.tokenizer)
    if config.train.embeddings not in (None, EMBED):
        yield "train.embeddings", to_uri(str(config.train.embeddings))


def find_start(init: str | None, lake: Lake, store: Store = ENVIRONMENT) -> str | None:
    """Return the URI of the model that `train.init` names. Return None if training starts from random weights."""
    if init is None:
        return None
    name = model_to_start_from(init)
    try:
        pipeline = champions_pipeline(name, lake)
        if name != init and pipeline and read_champion(pipeline, store)[0] is None:
            return None
        return find_model(name, lake, store)
    except InputError as error:
        is_champion = init.partition(":")[0] == CHAMPION
        hint = (
            f"; or set train.init={init.replace(CHAMPION, CHAMPION_OR_SCRATCH, 1)} to start from random weights if"
            " there is no champion"
            if is_champion
            else ""
        )
        raise InputError(f"train.init: {error}{hint}") from None


def model_to_start_from(init: str) -> str:
    """Return ``champion:poems`` for ``champion-or-scratch:poems``, and any other value of `train.init` as it is."""
    kind, *name = init.partition(":")
    return "".join((CHAMPION, *name)) if kind == CHAMPION_OR_SCRATCH else init


def find_used(config: Config, lake: Lake, store: Store = ENVIRONMENT) -> str:
    """Return the URI of the model that `use.model` names."""
    try:
        return find_model(str(config.use.model), lake, store)
    except InputError as error:
        raise InputError(f"use.model: {error}") from None


def check_used(config: Config, lake: Lake, store: Store = ENVIRONMENT) -> str:
    """Check that the model of `use.model` is complete and works with the run's steps. Return the URI of the model."""
    uri = find_used(config, lake, store)
    try:
        check_complete(uri, store)
        with _reading_config(uri):
            kind, shape = kind_and_shape(json.loads(read_model_file(uri, CONFIG, store)))
    except DamagedError as error:
        raise InputError(f"use.model: {error}") from None
    if kind not in ARCHITECTURES.values():
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"use.model ({uri}): its architecture {_shown(kind)} is not supported; use one of {known}")
    model = config.model.model_copy(update={"kind": kind, **shape})
    if "generate" in config.steps and (wrong := config.reason_against_dtype(model)):
        raise InputError(f"use.model ({uri}): {wrong}")
    return uri


@contextmanager
def _reading_config(uri: str) -> Iterator[None]:
    """Turn the errors from an invalid ``config.json`` of the model at `uri` into a DamagedError."""
    try:
        yield
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        raise DamagedError(f"{join(uri, CONFIG)}: not the configuration of a model; use another model") from None


def check_model(config: Config, uri: str, store: Store = ENVIRONMENT) -> None:
    """Check that the run's model settings allow a start from the weights of the model at `uri`."""
    data = read_model_file(uri, CONFIG, store)
    with _reading_config(uri):
        found = next(differing_settings(config, json.loads(data)), None)
    if found:
        key, theirs, ours = found
        raise InputError(
            f"train.init ({uri}): {key} is {_shown(theirs)} in that model and {_shown(ours)} in this run;"
            " give this run the values of that model"
        )


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
