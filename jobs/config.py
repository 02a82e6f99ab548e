"""What a run does: one frozen model per step, resolved once and written into the run's folder.

Precedence: defaults < preset file (``jobs/presets/<name>.toml``) < ``--set key=value`` or the trigger form. Keys are
dotted (``train.batch_size``); unknown keys are errors. Airflow builds its trigger form from `flat_schema`.
Light: pydantic and the standard library alone.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.resources import files
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jobs.errors import InputError


class Section(BaseModel):
    """A group of settings: frozen, unknown keys refused, the docstring under a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class TokenizeConfig(Section):
    """From text to tokens."""

    documents: Literal["paragraph", "line", "record", "file"] = "paragraph"
    """What a document is: text between blank lines, a line, a record (of .jsonl or .parquet; a text file is one
    record), or a whole text file. Paragraphs and lines divide records too."""
    input: Literal["text", "ids"] = "text"
    """`ids`: the files hold tokens already, as numbers or as `word,[ids],frequency`; needs tokenize.kind=word."""
    field: str = Field("text", min_length=1)
    """The field of .jsonl and the column of .parquet that hold the text."""
    invalid_utf8: Literal["refuse", "replace"] = "refuse"
    """What is not UTF-8 (or half a surrogate pair in JSON) is refused, or replaced by U+FFFD and counted."""
    drop_gutenberg: bool = False
    """Leave out the headers and footers of Project Gutenberg."""
    normalize_nfc: bool = False
    """Bring text into Unicode's normal form C."""
    min_document_bytes: int = Field(0, ge=0)
    """Drop documents that are shorter."""
    max_document_bytes: int | None = Field(None, ge=1)
    """Drop documents that are longer."""
    drop_duplicates: bool = False
    """Keep the first of documents with the same text. No source is then re-used, for what is kept depends on others."""
    kind: Literal["bpe", "word", "char"] = "bpe"
    """What a token is, where a vocabulary is trained: byte-level BPE, which knows every text; a word; a character.
    Words and characters that the vocabulary lacks become `<unk>`."""
    lowercase: bool = False
    """Turn words or characters into lower case."""
    min_frequency: int = Field(1, ge=1)
    """Rarer words or characters are not in the vocabulary."""
    tokenizer: str = Field("train", min_length=1)
    """`train` to train a vocabulary on the corpus; `inherit` to take the champion's, else that of the latest run on
    this corpus, else train; or the path or URI of a `tokenizer.json`."""
    vocab_size: int = Field(8192, ge=3, le=1_000_000)
    """Most tokens of a trained vocabulary: 256 bytes, the end-of-text token and merges; or the end-of-text token,
    `<unk>` and words or characters."""
    train_bytes: int = Field(256 * 2**20, ge=1024)
    """Train BPE on an even sample of the corpus of at most so many bytes; words and characters are counted in all."""
    split_bytes: int = Field(8 * 2**20, ge=4096)
    """A file is cut into ranges of about so many bytes, each one task; compressed files and documents that are whole
    files are not cut."""

    @model_validator(mode="after")
    def _bytes_in_vocabulary(self) -> Self:
        if self.kind == "bpe" and self.vocab_size < 258:
            raise ValueError(f"tokenize.vocab_size ({self.vocab_size}) must be at least 258 for tokenize.kind=bpe")
        return self

    @model_validator(mode="after")
    def _ids_are_words(self) -> Self:
        if self.input == "ids" and self.kind != "word":
            raise ValueError(f"tokenize.input=ids needs tokenize.kind=word, not {self.kind}: each id is one token")
        return self


class WindowsConfig(Section):
    """From tokens to windows of training and validation."""

    size: int = Field(128, ge=1, le=65_536)
    """Tokens of context in a window; the target is the token after each."""
    overlap: int = Field(0, ge=0)
    """Tokens that neighbouring windows share; the stride is size minus overlap."""
    over: Literal["stream", "document"] = "stream"
    """Windows over the stream of joined documents, or inside documents (shorter ones are skipped and counted)."""
    last: Literal["drop", "shift"] = "drop"
    """What is too short for one window more, at the end of the stream or of a document, is dropped; or the last window
    is shifted back so that it ends there."""
    split: Literal["auto", "source", "block", "hash", "tail"] = "auto"
    """How documents are split: by source file, contiguous blocks, document hash or the tail; `auto` takes source
    when there are enough files, else block."""
    valid_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of the corpus that is kept for validation."""
    shard_tokens: int = Field(2**20, ge=16)
    """A shard holds about so many tokens of the stream."""
    seed: int = Field(0, ge=0)
    """Seed of the split."""
    leak_ngram: int = Field(13, ge=0, le=1000)
    """Tell which share of the validation text's runs of so many tokens stands in the training text too; 0 does not."""

    @property
    def stride(self) -> int:
        """Distance of the starts of neighbouring windows, in tokens."""
        return self.size - self.overlap

    @model_validator(mode="after")
    def _overlap_below_size(self) -> Self:
        if self.overlap >= self.size:
            raise ValueError(f"windows.overlap ({self.overlap}) must be less than windows.size ({self.size})")
        return self


class ModelConfig(Section):
    """The shape of the decoder (Llama: RMSNorm, rotary positions, SwiGLU, tied embeddings)."""

    num_layers: int = Field(4, ge=1, le=200)
    """Number of decoder layers."""
    embedding_size: int = Field(256, ge=2, le=16_384)
    """Width of the residual stream."""
    hidden_size: int = Field(688, ge=1, le=65_536)
    """Width inside the feed-forward block."""
    num_heads: int = Field(4, ge=1, le=256)
    """Number of query heads."""
    num_kv_heads: int = Field(4, ge=1, le=256)
    """Number of key and value heads; query heads share them evenly."""
    rope_theta: float = Field(10_000.0, gt=1)
    """Base of the rotary positions' wavelengths."""
    norm_epsilon: float = Field(1e-5, gt=0)
    """Added to the mean square in RMSNorm."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.embedding_size % (2 * self.num_heads):
            raise ValueError(
                f"model.embedding_size ({self.embedding_size}) must be a multiple of twice model.num_heads"
                f" ({self.num_heads}): rotary positions turn pairs"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"model.num_kv_heads ({self.num_kv_heads}) must divide model.num_heads ({self.num_heads})")
        return self


class TrainConfig(Section):
    """How the model is trained."""

    strategy: Literal["allreduce"] = "allreduce"
    """Synchronous all-reduce of gradients in a barrier stage."""
    workers: int = Field(2, ge=1, le=1024)
    """Tasks that train together."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training windows; may be a fraction."""
    max_tokens: int | None = Field(None, ge=1)
    """Stop after so many tokens, if that is sooner."""
    max_seconds: float | None = Field(None, gt=0)
    """Stop after so many seconds of training, if that is sooner."""
    batch_size: int = Field(32, ge=1)
    """Windows in a global batch, whatever the number of workers."""
    learning_rate: float = Field(1e-3, gt=0)
    """Highest learning rate of AdamW."""
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1)
    """The cosine ends at so much of the highest learning rate."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up; at most a tenth of all steps is used."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay of matrices; vectors are not decayed."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of AdamW's first moment."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """Decay of AdamW's second moment."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    embeddings: str | None = None
    """Embeddings that the model starts from: a dataset's folder, or a .csv, .parquet or word2vec .txt file."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of matrix products; `auto` takes bfloat16 where the hardware has it."""
    seed: int = Field(1234, ge=0)
    """Seed of initial weights and of the order of samples."""
    eval_every: int = Field(100, ge=1)
    """Validate every so many steps, and at the end."""
    eval_windows: int = Field(512, ge=1)
    """Validate on at most so many windows, evenly spaced."""
    checkpoint_every: int = Field(200, ge=1)
    """Write a checkpoint every so many steps, and at the end."""
    keep_checkpoints: int = Field(2, ge=1)
    """Keep so many of the latest checkpoints."""
    max_restarts: int = Field(3, ge=0)
    """Resume from the last checkpoint after a lost worker at most so many times."""
    gang_timeout_seconds: float = Field(300.0, gt=0)
    """Longest wait of a worker for the others."""

    @model_validator(mode="after")
    def _a_window_for_each_worker(self) -> Self:
        if self.batch_size < self.workers:
            raise ValueError(
                f"train.batch_size ({self.batch_size}) must be at least train.workers ({self.workers}):"
                " each worker takes a part of the global batch"
            )
        return self


class GenerateConfig(Section):
    """What text is made with the trained model."""

    prompts: tuple[str, ...] = Field(("The man starts with",), min_length=1)
    """Texts to continue."""
    prompts_file: str | None = None
    """If given, the prompts are read from there instead: a text file with one on each line, or a .jsonl file whose
    lines have a `prompt`; a path, file:///... or s3://..."""
    num_samples: int = Field(3, ge=1, le=10_000)
    """Continuations of each prompt."""
    max_new_words: int = Field(20, ge=1)
    """Each continuation has at most so many words."""
    max_new_tokens: int | None = Field(None, ge=1)
    """If given, each continuation has at most so many tokens, however many words they make."""
    temperature: float = Field(0.8, ge=0)
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int | None = Field(50, ge=1)
    """Draw among the k likeliest tokens."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw among the likeliest tokens that together have at least this probability."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Draw among tokens of at least this share of the likeliest one's probability."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Tokens of the prompt and of the text so far are made less likely; 1 leaves them alone."""
    stop: tuple[str, ...] = ()
    """A continuation ends before the first of these texts."""
    seed: int = Field(0, ge=0)
    """Seed of the draws."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of matrix products. float32 gives the same text on every machine that rounds alike."""

    @model_validator(mode="after")
    def _stops_are_texts(self) -> Self:
        if "" in self.stop:
            raise ValueError("generate.stop holds an empty text, at which every continuation would end at once")
        return self


class EmbedConfig(Section):
    """How vectors of tokens are learned (word2vec: skip-gram with negative sampling)."""

    size: int = Field(128, ge=1, le=16_384)
    """Numbers in a vector; model.embedding_size, if a model is to start from it."""
    window: int = Field(5, ge=1, le=1000)
    """Neighbours of a token stand at most so many tokens away."""
    negative: int = Field(5, ge=1, le=1000)
    """Negative samples for each pair of neighbours."""
    epochs: int = Field(5, ge=1, le=10_000)
    """Passes over the tokens."""
    min_count: int = Field(5, ge=1)
    """Tokens that occur less often get no vector."""
    subsample: float = Field(1e-3, ge=0, le=1)
    """Tokens with a greater share of the text than this are thinned out; 0 keeps them all."""
    learning_rate: float = Field(0.05, gt=0)
    """First learning rate; it falls linearly to a tenth."""
    workers: int = Field(2, ge=1, le=1024)
    """Tasks of a round; their vectors are averaged at its end."""
    sync_tokens: int = Field(2**18, ge=1)
    """In a round each worker trains on about so many tokens."""
    seed: int = Field(1, ge=0)
    """Seed of initial vectors and of all draws."""


class SparkConfig(Section):
    """Sizes that the cluster gives to the job."""

    app_name: str = Field("nightjar", min_length=1)
    """Name of the Spark application."""
    driver_memory: str = Field("2g", pattern=r"^[1-9][0-9]*[kmgt]$")
    """Memory of the driver, as Spark writes it."""
    executor_memory: str = Field("2g", pattern=r"^[1-9][0-9]*[kmgt]$")
    """Memory of an executor, as Spark writes it."""
    executors: int = Field(2, ge=1, le=1024)
    """Number of executors."""
    executor_cores: int = Field(1, ge=1, le=256)
    """Tasks that an executor runs at a time."""


class ClusterConfig(Section):
    """The EMR cluster that exists only while a run lasts."""

    release_label: str = "emr-spark-8.0.0"
    """EMR release; it decides the versions of Spark and Python."""
    primary_instance_type: str = "m6i.xlarge"
    """Instance type of the primary node, which runs the driver."""
    core_instance_type: str = "m6i.xlarge"
    """Instance type of the core nodes, which run the executors."""
    core_instances: int = Field(2, ge=1, le=1000)
    """Number of core nodes."""
    subnet_id: str | None = None
    """VPC subnet of the cluster; none takes the account's default."""
    service_role: str = "EMR_DefaultRole"
    """Role of the EMR service."""
    instance_profile: str = "EMR_EC2_DefaultRole"
    """Instance profile of the nodes."""
    idle_timeout_seconds: int = Field(900, ge=60, le=604_800)
    """EMR itself ends a cluster that is idle for so long."""
    time_to_live_hours: float = Field(12.0, gt=0)
    """The reaper ends a cluster that is older."""
    step_timeout_seconds: int = Field(6 * 3600, ge=60)
    """Longest duration of a step; then it is cancelled."""
    owner: str = "nightjar"
    """Tag that says who answers for the cluster."""


class Config(Section):
    """Everything that a run does, every default filled in."""

    corpus: str = Field(min_length=1)
    """Text to train on (.txt, .jsonl, .parquet; plain, .gz, .bz2, .zst): files, folders or patterns, as paths,
    file:///... or s3://..., one in each line or as a JSON list."""
    preset: str = "demo"
    """Name of the preset that the settings started from."""
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR"] = "INFO"
    """Least severe log lines that are shown."""
    tokenize: TokenizeConfig = TokenizeConfig()
    windows: WindowsConfig = WindowsConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    embed: EmbedConfig = EmbedConfig()
    spark: SparkConfig = SparkConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _slots_for_workers(self) -> Self:
        slots = self.spark.executors * self.spark.executor_cores
        if slots < self.train.workers:
            raise ValueError(
                f"train.workers ({self.train.workers}) must be at most spark.executors x spark.executor_cores"
                f" ({slots}): a barrier stage starts only when all its tasks have a slot"
            )
        return self

    def to_json(self) -> str:
        """The configuration as it stands in a run's folder."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "configuration") -> Config:
        """Read what `to_json` wrote.

        Raises:
            InputError: if it is not a valid configuration; the message starts with `where`.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"{where}: {_one_line(error)}") from None


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = files("jobs") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def resolve(corpus: str, preset: str = "demo", overrides: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration of a run: defaults, then the preset, then `overrides` (dotted keys).

    Raises:
        InputError: naming the key that is unknown or out of range, or the preset that does not exist.
    """
    values = _preset(preset)
    for key, value in (overrides or {}).items():
        _put(values, key, value)
    try:
        return Config.model_validate({**values, "corpus": corpus, "preset": preset})
    except ValidationError as error:
        raise InputError(_one_line(error)) from None


def override(config: Config, section: str, settings: Mapping[str, Any]) -> Config:
    """`config` with other settings of one section, given by their dotted keys.

    Raises:
        InputError: naming the key that is unknown, out of range or of another section.
    """
    values = config.model_dump()
    for key, value in settings.items():
        if not key.startswith(f"{section}."):
            raise InputError(f"{key}: only keys of '{section}' can be set here")
        _put(values, key, value)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError(_one_line(error)) from None


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` settings: the value is JSON where it can be read as such, else text.

    Raises:
        InputError: for a setting without ``=``.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found or not key.strip():
            raise InputError(f"--set {setting}: write key=value, for example --set train.batch_size=64")
        try:
            values[key.strip()] = json.loads(text)
        except json.JSONDecodeError:
            values[key.strip()] = text
    return values


def flat_schema() -> dict[str, dict[str, Any]]:
    """JSON schema of every dotted key but `corpus` and `preset`, with its default, for the trigger form.

    Each value has `description`, `default` and `section` beside the schema's own words (type, minimum, enum, ...).
    """
    schema: dict[str, dict[str, Any]] = {}
    for name, field in Config.model_fields.items():
        owner = field.annotation
        if isinstance(owner, type) and issubclass(owner, Section):
            properties = owner.model_json_schema()["properties"]
            schema |= {f"{name}.{key}": {**_plain(value), "section": name} for key, value in properties.items()}
        elif name not in ("corpus", "preset"):
            schema[name] = {**_plain(Config.model_json_schema()["properties"][name]), "section": "run"}
    return schema


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Turn pydantic's ``anyOf [x, null]`` into a list of types, as forms want it."""
    plain = {key: value for key, value in schema.items() if key not in ("anyOf", "title")}
    for choice in schema.get("anyOf", []):
        plain |= {key: value for key, value in choice.items() if key != "type"}
    if "anyOf" in schema:
        plain["type"] = [choice["type"] for choice in schema["anyOf"]]
    return plain


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise InputError(f"preset '{name}' does not exist; choose one of {', '.join(preset_names())}")
    return tomllib.loads((files("jobs") / "presets" / f"{name}.toml").read_text("utf-8"))


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted `key`; that it exists is checked when the whole is validated."""
    *sections, last = key.split(".")
    if sections and sections[0] not in Config.model_fields:
        raise InputError(f"{key}: unknown key{_nearest(key)}")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InputError(f"{key}: unknown key{_nearest(key)}")
        values = inner
    values[last] = value


def _nearest(key: str) -> str:
    close = get_close_matches(key, list(flat_schema()), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _one_line(error: ValidationError) -> str:
    """The first thing that is wrong, with its key and the value that was given."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{_nearest(key)}"
    if first["type"] == "value_error" and not (key and key.count(".")):
        return str(first["ctx"]["error"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, got {first['input']!r}"
