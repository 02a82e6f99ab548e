"""The trigger form: make one field for each setting, named by its dotted key, and read a filled-in form.

A field shows the value that the pipeline's file or the environment sets. If neither sets the setting, the field is
empty: the run takes the preset's value unless the user fills in the field. The field's description gives the value of
each preset. A switch, which is true or false, always shows a value.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, reduce
from operator import getitem
from typing import Any

from airflow.sdk import Param

from jobs.config import (
    Config,
    environment_settings,
    flat_schema,
    of_run,
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
from nightjar.pipelines import DEFAULT_PRESET, PipelineConfig

SAMPLE = "shakespeare"
"""The name of the sample corpus in the folder `corpora` of a lake."""
MAX_TEXTS = 50

_NAME = r"`[^`\s]+`"
_MEANING = re.compile(rf"({_NAME}(?:(?:, | and ){_NAME})*)(?: \([^)]*\))?:? ((?:[^.]|\.(?=\S))+)")
"""Matches a sentence of a setting's description that explains one or several of the setting's allowed values."""


def trigger_form(pipeline: PipelineConfig, lake: Lake) -> dict[str, Param]:
    """Return the fields of the form.

    Args:
        pipeline: The pipeline whose corpus, preset and settings the form shows. If the pipeline has no corpus, the form
            shows the sample corpus, unless the pipeline's runs start automatically.
        lake: The lake. If it is a local folder, the form offers the texts in its folder `corpora`. A lake in S3 is not
            read.
    """
    schemas, given = flat_schema(), _given(pipeline)
    shown = _shown_at_first(pipeline, given)
    fields = {key: _field(key, schemas[key], given, shown.get(key)) for key in schemas}
    fields["corpus"] = _corpus_field(pipeline.corpus, lake, scheduled=pipeline.is_automatic)
    fields["preset"] = Param(
        pipeline.preset,
        type="string",
        enum=preset_names(),
        values_display={name: f"{name}: {preset_summary(name)}" for name in preset_names()},
        description_md="Settings to start from. An empty field below takes its default. If some presets have other"
        " defaults, the field's description lists them in brackets. A field that you fill in overrides the preset.",
        **form_layout.place("preset"),
    )
    return {key: fields[key] for key in form_layout.ordered(set(fields))}


def read_form(params: Mapping[str, Any], pipeline: PipelineConfig) -> Config:
    """Return the configuration of a filled-in form.

    Settings come from the preset, the pipeline's file, the environment and the form's fields. Later sources override
    earlier ones. Unknown keys are errors here, because Airflow accepts them without a message.

    Raises:
        InputError: if a value is missing, unknown or out of range. The message names the setting.
    """
    pipeline.check()
    corpus = params.get("corpus")
    environment = environment_settings()
    shown = _shown_at_first(pipeline, _given(pipeline))
    # A field that showed a value counts as filled in if the user changed it. Emptying a field is a change only if the
    # setting may have no value.
    emptied = set(filter(_can_be_emptied, shown))
    filled = {
        key: value
        for key, value in params.items()
        if key not in ("corpus", "preset") and (value is not None or key in emptied)
    }
    chosen = {key: value for key, value in filled.items() if key not in shown or value != shown[key]}
    places = dict.fromkeys(pipeline.values, str(pipeline.path)) | {key: variable_name(key) for key in environment}
    config = resolve(
        to_corpus(str(corpus)) if corpus else "",
        str(params.get("preset") or pipeline.preset),
        {**pipeline.values, **environment, **chosen},
        {key: place for key, place in places.items() if key not in chosen},
    )
    if config.reads_text and not corpus:
        purpose = "train on" if config.trains else "evaluate the model on"
        raise InputError(f"corpus: no text to {purpose}; name one in the trigger form, or {_place_of_corpus(pipeline)}")
    return config


def _place_of_corpus(pipeline: PipelineConfig) -> str:
    if pipeline.path is not None:
        return f"as corpus in {pipeline.path}"
    return "set NIGHTJAR_CORPUS"


@dataclass(frozen=True)
class _Given:
    """The settings that a pipeline's file or the environment sets, and the place where each is set."""

    values: Mapping[str, Any]
    places: Mapping[str, str]


def _given(pipeline: PipelineConfig) -> _Given:
    environment = _environment()
    of_file = dict.fromkeys(pipeline.values, pipeline.path.name if pipeline.path else "")
    return _Given({**pipeline.values, **environment}, of_file | {key: variable_name(key) for key in environment})


def _shown_at_first(pipeline: PipelineConfig, given: _Given) -> dict[str, Any]:
    """Return a dict from key to the value that the form shows at first.

    The form shows the values in `given`, and the preset's values of all other switches. It leaves settings of the
    deployment, such as subnets, empty unless they are switches: a run keeps the values that its form showed, so it
    would not use a subnet that is corrected later.
    """
    values = _preset_values()[pipeline.preset]
    switches = {key: value for key, value in values.items() if isinstance(value, bool)}
    try:
        config = resolve("file:///corpus", pipeline.preset, given.values).model_dump(mode="json")
    except InputError:  # preflight reports the mistake
        return switches
    keys = {key for key in given.values if not of_run.is_deployment(key)} | switches.keys()
    found: dict[str, Any] = {key: reduce(getitem, key.split("."), config) for key in keys}
    return {key: value for key, value in found.items() if value is not None}


def local_texts(lake: Lake) -> list[str]:
    """Return the sorted paths of the texts in the folder `corpora` of a local lake. Return [] for a lake in S3."""
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
        description.append(f"Empty the field to choose one of the texts in `{place}`: {names}. Add yours there.")
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


def _field(key: str, schema: Mapping[str, Any], given: _Given, shown: Any) -> Param:
    """Return the form's field for a setting. The field shows `shown` at first, or is empty if `shown` is None."""
    rules = {name: value for name, value in schema.items() if name not in ("default", "description", "section")}
    text = _markdown(f"{schema['description']}\n\n{_default_text(key, given)} Setting: `{key}`")
    types = rules["type"] if isinstance(rules.get("type"), list) else [rules.get("type", "string")]
    rules["type"] = ["null", *(name for name in types if name != "null")]
    if "const" in rules:
        rules["enum"] = [rules.pop("const")]
    if "enum" in rules:
        meanings = _meanings(schema["description"])
        labels = {value: f"{value}: {meanings[value]}" if value in meanings else value for value in rules["enum"]}
        rules["values_display"] = {"null": "as the preset says"} | labels
        rules["enum"] = [None, *rules["enum"]]
    return Param(shown, description_md=text, **rules, **form_layout.place(key))


def _meanings(description: str) -> dict[str, str]:
    """Return a dict from allowed values to their meanings, taken from the sentences of a setting's description."""
    meanings: dict[str, str] = {}
    for sentence in re.split(r"(?<=\.) |(?<=;) (?=`)", description):
        if found := _MEANING.match(sentence):
            for name in re.findall(_NAME, found[1]):
                meanings.setdefault(name.strip("`"), found[2].rstrip(";"))
    return meanings


def _default_text(key: str, given: _Given) -> str:
    """Return a sentence about the value that an empty field takes: the given value, or the defaults of the presets."""
    if key in given.values:
        value, place = _shown(given.values[key]), given.places[key]
        if _can_be_emptied(key) and not of_run.is_deployment(key):
            return f"Set in {place}: {value}. An empty field means no value."
        return f"An empty field takes {value}, set in {place}."
    values = {preset: _shown(settings[key]) for preset, settings in _preset_values().items()}
    [(common, _)] = Counter(values.values()).most_common(1)
    others = ", ".join(f"{preset}: {value}" for preset, value in values.items() if value != common)
    return f"Default: {common} ({others})." if others else f"Default: {common}."


def _can_be_emptied(key: str) -> bool:
    """Return whether a setting may have no value. Then an emptied field means no value."""
    return "null" in flat_schema()[key].get("type", ())


@cache
def _preset_values() -> dict[str, dict[str, Any]]:
    """Return the value of each setting in each preset, the default preset first."""
    keys = list(flat_schema())
    names = sorted(preset_names(), key=lambda name: name != DEFAULT_PRESET)
    configs = {name: resolve("file:///corpus", name).model_dump(mode="json") for name in names}
    return {name: {key: reduce(getitem, key.split("."), config) for key in keys} for name, config in configs.items()}


def _environment() -> dict[str, Any]:
    """Return the settings in environment variables. Return {} if a variable is wrong, so that the form still appears.

    `read_form` reports the wrong variable when a run starts.
    """
    try:
        return environment_settings()
    except InputError:
        return {}


def _markdown(text: str) -> str:
    """Return a text as Markdown, with names in bold type instead of code.

    In Airflow's form, code would cover the line above.
    """
    escaped = re.sub(r"([\\*_<>\[\]#~])", r"\\\1", text)
    return re.sub(r"`([^`]+)`", r"**\1**", escaped)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, ensure_ascii=False)
