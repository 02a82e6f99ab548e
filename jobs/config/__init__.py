"""The configuration of a run: frozen sections of settings, resolved once and written into the run's folder.

Airflow's scheduler loads this package, so it imports nothing but pydantic and the standard library.

Precedence, the lowest first: defaults < preset (``jobs/config/presets/<name>.toml``) < configuration file
(``--config-file``) < environment variables (``NIGHTJAR_TRAIN_BATCH_SIZE``) < ``--set key=value`` or the trigger form.
Keys are dotted (``train.batch_size``). Unknown keys are errors.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from jobs.config.effects import acts_with
from jobs.config.sections import Section
from jobs.config.sections.budget import BudgetConfig
from jobs.config.sections.cluster import ClusterConfig, SparkConfig
from jobs.config.sections.data import PIECE_BYTES, EmbedConfig, TokenizeConfig, WindowsConfig
from jobs.config.sections.model import EMBED, GenerateConfig, ModelConfig, TrainConfig
from jobs.config.sections.promotion import PromotionConfig
from jobs.config.sections.use import UseConfig
from jobs.errors import InputError, did_you_mean, shorten

__all__ = [
    "STEPS",
    "BudgetConfig",
    "ClusterConfig",
    "Config",
    "EmbedConfig",
    "GenerateConfig",
    "ModelConfig",
    "PromotionConfig",
    "SparkConfig",
    "TokenizeConfig",
    "TrainConfig",
    "UseConfig",
    "WindowsConfig",
    "environment_settings",
    "first_wrong",
    "flat_schema",
    "override",
    "parse_settings",
    "preset_names",
    "preset_summary",
    "resolve",
]

STEPS = ("tokenize", "windows", "embed", "train", "generate", "score", "evaluate")
"""The steps of a run in their order. `embed` and `score` run only if the configuration needs them. A run that uses a
model instead of training one has one step: `generate` or `evaluate`."""
SCORE, EVALUATE = "score", "evaluate"

PREFIX = "NIGHTJAR_"
RUN_KEYS = ("corpus", "preset")
"""Keys of a configuration file that are not settings: the corpus and the preset of the run."""
INT8_MULTIPLE = 16
"""The row length of a matrix must be a multiple of this number: torch's int8 kernel reads 16 values at a time."""
_PRESETS = files("jobs.config") / "presets"


class Config(Section):
    """The complete configuration of a run, with every default filled in."""

    corpus: str
    """Text to train on, or to evaluate a model on: files, folders or patterns of .txt, .jsonl or .parquet files, also
    compressed (.gz, .bz2, .xz, .zst). Paths, file:///... or s3://..., one in each line or as a JSON list. A run that
    only generates text needs none."""
    preset: str = "demo"
    """Name of the preset that the settings start from."""
    chosen: tuple[str, ...] = ()
    """Keys of the settings that were set outside the preset (in a file, the environment, a command or the form), in
    alphabetical order."""
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR"] = "INFO"
    """Lowest level of the log lines to write. DEBUG adds the traceback of errors."""
    tokenize: TokenizeConfig = TokenizeConfig()
    windows: WindowsConfig = WindowsConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    use: UseConfig = UseConfig()
    embed: EmbedConfig = EmbedConfig()
    promotion: PromotionConfig = PromotionConfig()
    budget: BudgetConfig = BudgetConfig()
    spark: SparkConfig = SparkConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _sections_fit(self) -> Config:
        slots = (self.spark.executors or 0) * (self.spark.executor_cores or 0)
        if self.trains and 0 < slots < self.train.workers:
            raise ValueError(
                f"train.workers ({self.train.workers}) must be at most spark.executors x spark.executor_cores"
                f" ({slots}): a barrier stage starts only when all its tasks have a slot"
            )
        if self.train.embeddings == EMBED and self.embed.size != self.model.embedding_size:
            raise ValueError(
                f"embed.size ({self.embed.size}) must equal model.embedding_size ({self.model.embedding_size}):"
                f" train.embeddings={EMBED} starts the model from these vectors"
            )
        if self.trains and (wrong := self.reason_against_dtype(self.model)):
            raise ValueError(wrong)
        return self

    def reason_against_dtype(self, model: ModelConfig) -> str:
        """Return why `model`, by its kind and shape, cannot generate with `generate.dtype`. Return "" if it can."""
        if self.generate.dtype != "int8":
            return ""
        if model.kind != "transformer":
            return f"generate.dtype=int8 needs model.kind=transformer, not {model.kind}; use float32 or bfloat16"
        for key, size in (("embedding_size", model.embedding_size), ("hidden_size", model.hidden_size)):
            if size % INT8_MULTIPLE:
                return (
                    f"generate.dtype=int8 needs a model.{key} that is a multiple of {INT8_MULTIPLE}, not {size};"
                    " use float32 or bfloat16"
                )
        return ""

    @property
    def trains(self) -> bool:
        """Whether the run trains a model, instead of using one that exists."""
        return self.use.model is None

    @property
    def promotes(self) -> bool:
        """Whether the run's model may become the champion."""
        return self.trains and self.promotion.enabled

    @property
    def reads_text(self) -> bool:
        """Whether the run reads a corpus."""
        return self.trains or self.use.task == EVALUATE

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of this run.

        `embed` is included only if the model starts from the vectors of this step. `score` is included only if the run
        may promote its model and the split is fixed. With such a split, no model of the pipeline has trained on the
        evaluation set. A run that uses an existing model has one step, which `use.task` names.
        """
        if not self.trains:
            return (self.use.task,)
        needed = {
            EMBED: self.train.embeddings == EMBED,
            SCORE: self.promotes and self.windows.split == "fixed",
            EVALUATE: False,
        }
        return tuple(step for step in STEPS if needed.get(step, True))

    @property
    def text_settings(self) -> TokenizeConfig:
        """The settings that divide text into documents.

        `max_piece_bytes` is None unless the run trains with a fixed split: only then are long documents cut.
        """
        is_cut = self.trains and self.windows.split == "fixed"
        piece_bytes = (self.tokenize.max_piece_bytes or PIECE_BYTES) if is_cut else None
        return self.tokenize.model_copy(update={"max_piece_bytes": piece_bytes})

    def to_json(self) -> str:
        """Return the content of ``config.json`` in the run's folder."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "configuration") -> Config:
        """Read a configuration that `to_json` wrote.

        Raises:
            InputError: if the configuration is not valid. The message begins with `where`.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"{where}: {first_wrong(error)}") from None


def preset_names() -> list[str]:
    """Return the names of the presets in this package."""
    return sorted(entry.name.removesuffix(".toml") for entry in _PRESETS.iterdir() if entry.name.endswith(".toml"))


def preset_summary(name: str) -> str:
    """Return the description of a preset, which is the first line of its file."""
    return (_PRESETS / f"{name}.toml").read_text("utf-8").partition("\n")[0].strip("# .")


def resolve(
    corpus: str,
    preset: str = "demo",
    overrides: Mapping[str, Any] | None = None,
    places: Mapping[str, str] | None = None,
) -> Config:
    """Return a run's configuration: the defaults, overridden by the preset, then by `overrides` (dotted keys).

    If the run does not read text, the corpus is left out. `places` maps a key to the file or environment variable that
    sets it.

    Raises:
        InputError: if a key or value is wrong. The message names the file or variable, if `places` has the key.
    """
    if preset not in preset_names():
        raise InputError(f"preset '{shorten(preset)}' does not exist; choose one of {', '.join(preset_names())}")
    values = tomllib.loads((_PRESETS / f"{preset}.toml").read_text("utf-8"))
    config = _validated({**values, "corpus": corpus, "preset": preset}, overrides or {}, places or {})
    return config if config.reads_text else config.model_copy(update={"corpus": ""})


def override(config: Config, section: str, settings: Mapping[str, Any]) -> Config:
    """Return a copy of `config` in which settings of one section are replaced by `settings` (dotted keys).

    Raises:
        InputError: if a key is unknown or belongs to another section, or if a value is wrong.
    """
    for key in settings:
        if not key.startswith(f"{section}."):
            raise InputError(f"{key}: this command can only change settings of the section {section}")
    return _validated(config.model_dump(), settings, {})


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Read settings of the form ``key=value``. Raise InputError for any other form."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found or not key.strip():
            raise InputError(f"--set {setting}: write key=value, for example --set train.batch_size=64")
        values[key.strip()] = parse_value(text)
    return values


def environment_settings(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the settings in environment variables ``NIGHTJAR_<SECTION>_<KEY>``, as a dict from dotted key to value.

    Blank variables are ignored.

    Raises:
        InputError: if a variable has the name of a section, but the section does not have the key.
    """
    keys = {variable_name(key): key for key in flat_schema()}
    sections = tuple({f"{PREFIX}{key.partition('.')[0].upper()}_" for key in keys.values() if "." in key})
    settings = {}
    for name, text in sorted(environ.items()):
        if name in keys and text.strip():
            settings[keys[name]] = parse_value(text)
        elif name.startswith(sections) and name not in keys:
            raise InputError(f"{name}: this variable does not belong to a setting{did_you_mean(name, keys)}")
    return settings


def variable_name(key: str) -> str:
    """Return the name of the environment variable that gives the setting `key`."""
    return PREFIX + key.replace(".", "_").upper()


def parse_value(text: str) -> Any:
    """Return the value of a setting that is given as text: the parsed JSON, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # the latter for thousands of nested brackets
        return text


@cache
def flat_schema() -> Mapping[str, Mapping[str, Any]]:
    """Return a dict from the dotted key of every setting to its JSON schema.

    Each schema has a `description`, a `default`, a `section`, and the constraints (type, minimum, enum, ...).
    """
    schema: dict[str, dict[str, Any]] = {}
    for name, field in Config.model_fields.items():
        owner = field.annotation
        if isinstance(owner, type) and issubclass(owner, Section):
            properties = owner.model_json_schema()["properties"]
            schema |= {f"{name}.{key}": {**_plain(value), "section": name} for key, value in properties.items()}
        elif name not in (*RUN_KEYS, "chosen"):
            schema[name] = {**_plain(Config.model_json_schema()["properties"][name]), "section": "run"}
    for key, value in schema.items():
        value["description"] = f"{value['description']} {acts_with(key)}".rstrip()
    return schema


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a field's schema in the form that Airflow needs: a list of types instead of ``anyOf [x, null]``."""
    plain = {key: value for key, value in schema.items() if key not in ("anyOf", "title")}
    plain["description"] = " ".join(plain["description"].split())
    for choice in schema.get("anyOf", []):
        plain |= {key: value for key, value in choice.items() if key != "type"}
    if "anyOf" in schema:
        plain["type"] = [choice["type"] for choice in schema["anyOf"]]
    return plain


def _validated(values: dict[str, Any], settings: Mapping[str, Any], places: Mapping[str, str]) -> Config:
    """Override `values` (nested by section) with `settings` (dotted keys), and return the validated configuration."""
    known = flat_schema()
    for key, value in settings.items():
        if key not in known:
            raise InputError(f"{_place(key, places)}{unknown_key(key)}")
        *sections, last = key.split(".")
        (values.setdefault(sections[0], {}) if sections else values)[last] = value
    values["chosen"] = tuple(sorted({*values.get("chosen", ()), *settings}))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"][:2])
        raise InputError(f"{_place(key, places)}{first_wrong(error)}") from None


def _place(key: str, places: Mapping[str, str]) -> str:
    return f"{places[key]}: " if key in places else ""


def unknown_key(key: str) -> str:
    """Return the error message for a dotted key that is not the key of a setting."""
    if key in RUN_KEYS:
        return f"{key}: not a setting; use --{key}"
    return f"{shorten(key)}: unknown key{did_you_mean(key, flat_schema(), cutoff=0.5)}"


def first_wrong(error: ValidationError) -> str:
    """Return a message of one line about the first mistake that pydantic found, with the key and the value."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_key(key)
    if first["type"] == "value_error" and not (key and key.count(".")):
        return str(first["ctx"]["error"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, got {shorten(repr(first['input']))}"
