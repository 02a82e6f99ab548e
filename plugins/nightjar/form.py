"""The trigger form: flat, one field for each dotted key of the configuration, and back.

Every field but `preset` is empty until the user fills it in, so that a preset can act: defaults < preset < form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from jobs.config import Config, flat_schema, preset_names, resolve
from jobs.errors import InputError
from jobs.sources.names import to_corpus

_RUN_KEYS = ("corpus", "preset")


def trigger_form(corpus: str | None) -> dict[str, Param]:
    """The form's fields; `corpus` is what the environment names."""
    form = {
        "corpus": Param(
            corpus,
            type=["null", "string"],
            description="Text to train on (.txt, .jsonl, .parquet; plain, .gz, .bz2, .zst): files, folders or patterns,"
            " as paths, file:///... or s3://...; several as a JSON list",
            section="run",
        ),
        "preset": Param(
            Config.model_fields["preset"].default,
            type="string",
            enum=preset_names(),
            description="Settings to start from; what is filled in below wins over it",
            section="run",
        ),
    }
    return form | {key: _field(schema) for key, schema in flat_schema().items()}


def read_form(params: Mapping[str, Any], deployment: Mapping[str, Any] | None = None) -> Config:
    """The configuration that a filled-in form asks for. Airflow accepts unknown keys silently; this does not.

    Args:
        params: The form's fields.
        deployment: Dotted keys of `nightjar.settings`, over which the form wins.

    Raises:
        InputError: naming what is missing, unknown or out of range.
    """
    corpus = params.get("corpus")
    if not corpus:
        raise InputError("corpus: no text to train on; name one in the trigger form, or set NIGHTJAR_CORPUS")
    chosen = {key: value for key, value in params.items() if key not in _RUN_KEYS and value is not None}
    return resolve(
        to_corpus(str(corpus)),
        str(params.get("preset") or Config.model_fields["preset"].default),
        {**(deployment or {}), **chosen},
    )


def _field(schema: Mapping[str, Any]) -> Param:
    rules = {key: value for key, value in schema.items() if key not in ("default", "description")}
    types = rules["type"] if isinstance(rules.get("type"), list) else [rules.get("type", "string")]
    rules["type"] = ["null", *(name for name in types if name != "null")]
    if "const" in rules:
        rules["enum"] = [rules.pop("const")]
    if "enum" in rules:
        rules["enum"] = [None, *rules["enum"]]
    default = schema.get("default")
    shown = "none" if default is None else json.dumps(default, ensure_ascii=False)
    return Param(None, description=f"{schema.get('description', '')} Default: {shown}".strip(), **rules)
