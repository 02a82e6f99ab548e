"""Whether a run divides its text as the decided split of its pipeline needs it (``windows.split=fixed``).

Preflight and `jobs run` check it before anything else, so only a small file is read. `jobs.datasets` has the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.config import Config
from jobs.errors import InputError, reading
from jobs.lake.layout import Pipeline
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import base_name

TEXT_SETTINGS = ("documents", "input", "field", "invalid_utf8", "drop_gutenberg", "normalize_nfc", "max_piece_bytes")
"""The settings that make documents of the text; with others, parts of decided documents would count as new ones."""


def text_rule(config: Config) -> dict[str, Any]:
    """Return what makes documents of a run's text, as the first version of a split stores it."""
    return {key: getattr(config.text_settings, key) for key in TEXT_SETTINGS}


def versions_of(pipeline: Pipeline, store: Store = ENVIRONMENT) -> list[tuple[int, str]]:
    """Return the numbers and the URIs of all versions of a pipeline's decisions, the first one first."""
    uris = (info.uri for info in store.list_files(pipeline.split, reaches=lambda _: False))
    names = ((base_name(uri).removesuffix(".json"), uri) for uri in uris)
    return sorted((int(name), uri) for name, uri in names if name.isdecimal())


def check_split(config: Config, pipeline: Pipeline, store: Store = ENVIRONMENT) -> None:
    """Check that a run makes the documents that the split of its pipeline was decided with.

    Raises:
        InputError: naming the first setting that differs, and its value then.
    """
    if config.windows.split != "fixed" or not (versions := versions_of(pipeline, store)):
        return
    _, uri = versions[-1]
    with reading(uri, "use another pipeline"):
        before = store.read_json(uri)["inputs"]["rule"]["text"]
    check_text(before, config, pipeline)


def decided_seed(config: Config, pipeline: Pipeline, store: Store = ENVIRONMENT) -> int | None:
    """Return the seed that the split of a run's pipeline was decided with; None if it is not decided, or not used."""
    if not config.trains or config.windows.split != "fixed" or not (versions := versions_of(pipeline, store)):
        return None
    _, uri = versions[-1]
    with reading(uri, "use another pipeline"):
        seed = store.read_json(uri)["inputs"]["rule"].get("seed")
        return None if seed is None else int(seed)


def check_text(before: Mapping[str, Any], config: Config, pipeline: Pipeline) -> None:
    """Raise InputError unless a run makes documents by the rule `before`."""
    for key, now in text_rule(config).items():
        if key in before and now != before[key]:
            raise InputError(
                f"tokenize.{key}={now}: the split of the pipeline {pipeline.name} was decided with {before[key]}, and"
                f" with other documents the same text could be on both sides; set tokenize.{key}={before[key]}, or use"
                " another pipeline"
            )
