"""Checks that a run divides text into documents as the fixed split of its pipeline does (``windows.split=fixed``).

Airflow's preflight and `jobs run` check this first, so only a small file is read. `jobs.datasets` makes the split.
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
"""The settings that decide which documents a text gives. If one changed, a text whose documents already have decided
sides would give other documents, and these would count as new."""


def text_rule(config: Config) -> dict[str, Any]:
    """Return a run's values of `TEXT_SETTINGS`. The first version of a fixed split stores this dict."""
    return {key: getattr(config.text_settings, key) for key in TEXT_SETTINGS}


def versions_of(pipeline: Pipeline, store: Store = ENVIRONMENT) -> list[tuple[int, str]]:
    """Return the number and the URI of each version of a pipeline's fixed split, in ascending order."""
    uris = (info.uri for info in store.list_files(pipeline.split, reaches=lambda _: False))
    names = ((base_name(uri).removesuffix(".json"), uri) for uri in uris)
    return sorted((int(name), uri) for name, uri in names if name.isdecimal())


def check_split(config: Config, pipeline: Pipeline, store: Store = ENVIRONMENT) -> None:
    """Check that a run has the text settings with which the split of its pipeline was fixed.

    Raises:
        InputError: if a setting differs. The message names the first such setting, and the value that it must have.
    """
    if config.windows.split != "fixed" or not (versions := versions_of(pipeline, store)):
        return
    _, uri = versions[-1]
    with reading(uri, "use another pipeline"):
        before = store.read_json(uri)["inputs"]["rule"]["text"]
    check_text(before, config, pipeline)


def decided_seed(config: Config, pipeline: Pipeline, store: Store = ENVIRONMENT) -> int | None:
    """Return the seed with which the pipeline's split was fixed.

    Return None if the split is not fixed yet or has no seed, or if the run does not use it.
    """
    if not config.trains or config.windows.split != "fixed" or not (versions := versions_of(pipeline, store)):
        return None
    _, uri = versions[-1]
    with reading(uri, "use another pipeline"):
        seed = store.read_json(uri)["inputs"]["rule"].get("seed")
        return None if seed is None else int(seed)


def check_text(before: Mapping[str, Any], config: Config, pipeline: Pipeline) -> None:
    """Raise InputError if a run's text settings differ from `before`, the settings with which the split was fixed."""
    for key, now in text_rule(config).items():
        if key in before and now != before[key]:
            raise InputError(
                f"tokenize.{key}={now}: the split of the pipeline {pipeline.name} was decided with {before[key]}."
                " With other documents, the same text could be in training and in validation;"
                f" set tokenize.{key}={before[key]}, or use another pipeline"
            )
