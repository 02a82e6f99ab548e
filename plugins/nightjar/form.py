"""The trigger form: one field for each setting, by its dotted key, and how a filled-in form is read.

Every field but `preset` is empty until the user fills it in, so that the preset decides about all others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from jobs.config import Config, environment_settings, flat_schema, preset_names, resolve
from jobs.errors import InputError
from jobs.sources.names import to_corpus

_RUN_KEYS = ("corpus", "preset")


def trigger_form(corpus: str | None) -> dict[str, Param]:
    """Return the fields of the form; `corpus` is the default of the field of that name."""
    fields = Config.model_fields
    form = {
        "corpus": Param(corpus, type=["null", "string"], description=fields["corpus"].description, section="run"),
        "preset": Param(
            fields["preset"].default,
            type="string",
            enum=preset_names(),
            description="Settings to start from. Fields that you fill in below override them.",
            section="run",
        ),
    }
    return form | {key: _field(schema) for key, schema in flat_schema().items()}


def read_form(params: Mapping[str, Any]) -> Config:
    """Return the configuration of a filled-in form: preset, then environment, then the form's fields.

    Unknown keys are errors here, because Airflow accepts them without a message.

    Raises:
        InputError: naming what is missing, unknown or out of range.
    """
    corpus = params.get("corpus")
    if not corpus:
        raise InputError("corpus: no text to train on; name one in the trigger form, or set NIGHTJAR_CORPUS")
    filled = {key: value for key, value in params.items() if key not in _RUN_KEYS and value is not None}
    preset = str(params.get("preset") or Config.model_fields["preset"].default)
    return resolve(to_corpus(str(corpus)), preset, {**environment_settings(), **filled})


def _field(schema: Mapping[str, Any]) -> Param:
    """Return the form's field for a setting. The field may stay empty; its description names the default."""
    rules = {key: value for key, value in schema.items() if key not in ("default", "description")}
    types = rules["type"] if isinstance(rules.get("type"), list) else [rules.get("type", "string")]
    rules["type"] = ["null", *(name for name in types if name != "null")]
    if "const" in rules:
        rules["enum"] = [rules.pop("const")]
    if "enum" in rules:
        rules["enum"] = [None, *rules["enum"]]
    default = "no value" if schema.get("default") is None else json.dumps(schema["default"], ensure_ascii=False)
    return Param(None, description=f"{schema['description']} Default: {default}", **rules)
