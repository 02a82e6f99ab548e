"""The trigger form: one field for each setting, by its dotted key, and how a filled-in form is read.

A field is empty until the user fills it in, so that the preset decides, and its description says what each preset
takes. Only `corpus`, `preset` and the switches show a value.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache, reduce
from operator import getitem
from typing import Any

from airflow.sdk import Param

from jobs.config import (
    Config,
    environment_settings,
    flat_schema,
    preset_names,
    preset_summary,
    resolve,
    variable_name,
)
from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.lake.uri import is_s3, local_path
from jobs.sources.names import is_hidden, text_format, to_corpus
from nightjar import form_layout

SAMPLE = "shakespeare"
"""The name of the sample corpus among the texts of a lake."""
MAX_TEXTS = 50

_DEFAULT_PRESET: str = Config.model_fields["preset"].default
_NAME = r"`[^`\s]+`"
_MEANING = re.compile(rf"({_NAME}(?:(?:, | and ){_NAME})*)(?: \([^)]*\))?:? ((?:[^.]|\.(?=\S))+)")
"""A sentence of a description that says what one or several choices mean."""


def trigger_form(corpus: str | None, lake: Lake, *, scheduled: bool = False) -> dict[str, Param]:
    """Return the fields of the form.

    Args:
        corpus: The corpus of the deployment, if it has one: the default of that field.
        lake: The lake whose texts the form offers, if it is on this machine. No other lake is read here.
        scheduled: Whether runs are scheduled. They need the corpus of the deployment, and never take the sample.
    """
    environment = _environment()
    schemas = flat_schema()
    fields = {key: _field(key, schemas[key], environment) for key in schemas}
    fields["corpus"] = _corpus_field(corpus, lake, scheduled=scheduled)
    fields["preset"] = Param(
        _DEFAULT_PRESET,
        type="string",
        enum=preset_names(),
        values_display={name: f"{name}: {preset_summary(name)}" for name in preset_names()},
        description_md="Settings to start from. A field below that is empty takes its default, which may be another one"
        " for some presets: they are named in brackets. A field that you fill in overrides the preset.",
        **form_layout.place("preset"),
    )
    return {key: fields[key] for key in form_layout.ordered(set(fields))}


def read_form(params: Mapping[str, Any]) -> Config:
    """Return the configuration of a filled-in form: preset, then environment, then the form's fields.

    Unknown keys are errors here, because Airflow accepts them without a message.

    Raises:
        InputError: naming what is missing, unknown or out of range.
    """
    corpus = params.get("corpus")
    if not corpus:
        raise InputError("corpus: no text to train on; name one in the trigger form, or set NIGHTJAR_CORPUS")
    preset = str(params.get("preset") or _DEFAULT_PRESET)
    environment = environment_settings()
    filled = {key: value for key, value in params.items() if key not in ("corpus", "preset") and value is not None}
    # A switch always has a value. It counts as filled in if it differs from the one that the form shows at first.
    shown = {key: value for key, value in filled.items() if value is _switch_default(key, environment)}
    overrides = {key: value for key, value in filled.items() if key not in shown}
    return resolve(to_corpus(str(corpus)), preset, {**environment, **overrides})


def local_texts(lake: Lake) -> list[str]:
    """Return the paths of texts in the folder `corpora` of a lake on this machine, sorted; none for another lake."""
    if is_s3(lake.uri):
        return []
    try:
        found = sorted(local_path(lake.corpora).iterdir())
    except OSError:
        return []
    visible = (path for path in found if not is_hidden(path.name) and str(path).isprintable())
    return [str(path) for path in visible if path.is_dir() or text_format(path.name)][:MAX_TEXTS]


def _corpus_field(corpus: str | None, lake: Lake, *, scheduled: bool) -> Param:
    texts = local_texts(lake)
    samples = [text for text in texts if text.endswith(f"/{SAMPLE}")]
    default = corpus or (None if scheduled else next(iter(samples or texts), None))
    place = lake.corpora if is_s3(lake.uri) else str(local_path(lake.corpora))
    description = [" ".join((Config.model_fields["corpus"].description or "").split())]
    if texts:
        names = ", ".join(f"`{text.removeprefix(f'{place}/')}`" for text in texts)
        description.append(f"Empty the field to choose among the texts in `{place}`: {names}. Put yours there as well.")
    else:
        description.append(f"For example `{place}/my-text.txt`.")
    examples: dict[str, Any] = {"examples": texts} if texts else {}
    return Param(
        default,
        type=["null", "string"],
        description_md=_markdown("\n\n".join(description)),
        **examples,
        **form_layout.place("corpus"),
    )


def _field(key: str, schema: Mapping[str, Any], environment: Mapping[str, Any]) -> Param:
    """Return the form's field for a setting."""
    rules = {name: value for name, value in schema.items() if name not in ("default", "description", "section")}
    text = _markdown(f"{schema['description']}\n\n{_default_text(key, environment)} Setting: `{key}`")
    types = rules["type"] if isinstance(rules.get("type"), list) else [rules.get("type", "string")]
    rules["type"] = ["null", *(name for name in types if name != "null")]
    if "const" in rules:
        rules["enum"] = [rules.pop("const")]
    if "enum" in rules:
        meanings = _meanings(schema["description"])
        labels = {value: f"{value}: {meanings[value]}" if value in meanings else value for value in rules["enum"]}
        rules["values_display"] = {"null": "as the preset says"} | labels
        rules["enum"] = [None, *rules["enum"]]
    return Param(_switch_default(key, environment), description_md=text, **rules, **form_layout.place(key))


def _meanings(description: str) -> dict[str, str]:
    """Return the meaning of each choice, as the sentences of a setting's description say it."""
    meanings: dict[str, str] = {}
    for sentence in re.split(r"(?<=\.) |(?<=;) (?=`)", description):
        if found := _MEANING.match(sentence):
            for name in re.findall(_NAME, found[1]):
                meanings.setdefault(name.strip("`"), found[2].rstrip(";"))
    return meanings


def _default_text(key: str, environment: Mapping[str, Any]) -> str:
    """Return what a run takes if the field stays empty: the value of most presets, and those of the others."""
    if key in environment:
        return f"Without a value here: {_shown(environment[key])}, from {variable_name(key)}."
    values = {preset: _shown(settings[key]) for preset, settings in _preset_values().items()}
    [(common, _)] = Counter(values.values()).most_common(1)
    others = ", ".join(f"{preset}: {value}" for preset, value in values.items() if value != common)
    return f"Default: {common} ({others})." if others else f"Default: {common}."


def _switch_default(key: str, environment: Mapping[str, Any]) -> bool | None:
    """Return the value that a switch shows at first; None if the setting is no switch."""
    value = environment.get(key, _preset_values()[_DEFAULT_PRESET].get(key))
    return value if isinstance(value, bool) else None


@cache
def _preset_values() -> dict[str, dict[str, Any]]:
    """Return the value of each setting in each preset, the default preset first."""
    keys = list(flat_schema())
    names = sorted(preset_names(), key=lambda name: name != _DEFAULT_PRESET)
    configs = {name: resolve("file:///corpus", name).model_dump(mode="json") for name in names}
    return {name: {key: reduce(getitem, key.split("."), config) for key in keys} for name, config in configs.items()}


def _environment() -> dict[str, Any]:
    """Return the settings of the environment. `read_form` names a variable that is wrong; the form still appears."""
    try:
        return environment_settings()
    except InputError:
        return {}


def _markdown(text: str) -> str:
    """Return a text with its names in bold. As code, the form would draw them over the line above."""
    escaped = re.sub(r"([\\*_<>\[\]#~])", r"\\\1", text)
    return re.sub(r"`([^`]+)`", r"**\1**", escaped)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, ensure_ascii=False)
