"""Every name in the lake, as pure functions of strings.

A place is named by a URI: ``file:///...`` (percent-encoded, as `pathlib.Path.as_uri` makes it) or ``s3://bucket/key``
(the key as it is). People give paths; `to_uri` makes URIs of them. Light: the standard library alone, since Airflow's
scheduler imports it. Nothing here touches a disk or a network.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from jobs.errors import InputError

MANIFEST = "_manifest.json"
STEPS = ("tokenize", "windows", "embed", "train", "generate")
"""All steps in their order; a run has those that its configuration asks for (`jobs.config.Config.steps`)."""
TEXT_FORMATS = ("txt", "jsonl", "parquet")
COMPRESSIONS = ("gz", "bz2", "zst")

_TEXT_NAME = re.compile(rf"\.({'|'.join(TEXT_FORMATS)})(?:\.({'|'.join(COMPRESSIONS)}))?$", re.IGNORECASE)
_WILDCARD = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def to_uri(path_or_uri: str) -> str:
    """Return the URI of a place that a person named by a path or a URI.

    Raises:
        InputError: if the scheme is neither ``file`` nor ``s3``, or an S3 URI names no bucket.
    """
    text = str(path_or_uri).strip()
    if not text:
        raise InputError("a path or URI is empty: give a local path, file:///... or s3://bucket/prefix")
    scheme, found, rest = text.partition("://")
    if not found:
        return Path(text).expanduser().absolute().as_uri()
    if scheme == "file":
        if not rest.startswith("/"):
            raise InputError(f"{text}: a file URI has three slashes and an absolute path, as in file:///data/lake")
        return "file://" + (rest.rstrip("/") or "/")
    if scheme == "s3":
        if not rest.split("/")[0]:
            raise InputError(f"{text}: no bucket; write s3://bucket/prefix")
        return "s3://" + rest.rstrip("/")
    raise InputError(f"{text}: unknown scheme '{scheme}'; use a local path, file:///... or s3://bucket/prefix")


def corpus_places(corpus: str) -> list[str]:
    """The URIs of the places that a corpus names: one, several in lines of their own, or a JSON list of them.

    Raises:
        InputError: if there is none, or one of them is no place.
    """
    text, lines = corpus.strip(), corpus.splitlines()
    if text.startswith("[") and text.endswith("]"):
        with suppress(ValueError):  # the name of a file may begin and end so
            lines = [str(place) for place in json.loads(text)]
    return [to_uri(line) for line in lines if line.strip()] or [to_uri(corpus)]


def to_corpus(corpus: str) -> str:
    """`corpus` as it stands in a configuration: URIs, one in each line."""
    return "\n".join(corpus_places(corpus))


def text_format(name: str) -> tuple[str, str | None] | None:
    """Format and compression that a file's name tells (``a.jsonl.gz``: ``jsonl``, ``gz``); None if it is not text."""
    found = _TEXT_NAME.search(name.lower())
    return (found[1], found[2]) if found else None


def text_stem(name: str) -> str:
    """A file's name without what tells its format: the same for the same text in another format."""
    return _TEXT_NAME.sub("", name)


def is_hidden(name: str) -> bool:
    """Whether a relative name, or a folder in it, starts with ``.`` or ``_``: Hadoop and Spark skip such."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def glob_of(uri: str) -> tuple[str, re.Pattern[str]] | None:
    """The folder in which a pattern (``*``, ``**``, ``?``, ``[a-z]``) starts, and what names below it must match.

    None if there is no wildcard in `uri`.
    """
    parts = (uri if is_s3(uri) else local_path(uri).as_posix()).split("/")
    fixed = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    if fixed == len(parts):
        return None
    folder, pattern = "/".join(parts[:fixed]), "/".join(parts[fixed:])
    regex, end = "", 0
    for wildcard in _WILDCARD.finditer(pattern):
        regex += re.escape(pattern[end : wildcard.start()])
        regex += _MEANING.get(wildcard[0]) or wildcard[0].replace("[!", "[^")
        end = wildcard.end()
    regex = f"{regex}{re.escape(pattern[end:])}\\Z"
    return (folder if is_s3(uri) else Path(folder or "/").as_uri()), re.compile(regex)


def is_s3(uri: str) -> bool:
    """Whether `uri` names a place in S3."""
    return uri.startswith("s3://")


def local_path(uri: str) -> Path:
    """The path that a ``file://`` URI names."""
    if not uri.startswith("file://"):
        raise InputError(f"{uri}: not a local place; a file:// URI is needed here")
    return Path(unquote(uri.removeprefix("file://")))


def bucket_and_key(uri: str) -> tuple[str, str]:
    """The bucket and the key (without a leading slash) that an ``s3://`` URI names."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def join(uri: str, *names: str) -> str:
    """The place below `uri` that `names` lead to; names may hold slashes, spaces and any letter."""
    tail = "/".join(name.strip("/") for name in names)
    return f"{uri.rstrip('/')}/{tail if is_s3(uri) else quote(tail)}"


def base_name(uri: str) -> str:
    """The last name of a URI, decoded."""
    name = uri.rstrip("/").rpartition("/")[2]
    return name if is_s3(uri) else unquote(name)


def safe_run_id(run_id: str) -> str:
    """`run_id` as it stands in the lake: Airflow's own hold ``:`` and ``+``, which some file systems refuse."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", run_id).strip("-.") or "run"


@dataclass(frozen=True)
class Run:
    """The folder of one run: ``<lake>/runs/<run_id>``."""

    lake_uri: str
    run_id: str

    @property
    def uri(self) -> str:
        """The run's folder."""
        return join(self.lake_uri, "runs", self.run_id)

    @property
    def config(self) -> str:
        """The resolved configuration, written once."""
        return join(self.uri, "config.json")

    @property
    def datasets(self) -> str:
        """Which datasets this run uses: ``{"tokens": fingerprint, "windows": fingerprint}``."""
        return join(self.uri, "datasets.json")

    @property
    def train(self) -> str:
        """Metrics and checkpoints; its manifest says that training is complete."""
        return join(self.uri, "train")

    @property
    def checkpoints(self) -> str:
        """One folder for each checkpoint, named by its step."""
        return join(self.train, "checkpoints")

    def checkpoint(self, step: int) -> str:
        """The checkpoint after `step` optimizer steps."""
        return join(self.checkpoints, f"{step:08d}")

    @property
    def stop(self) -> str:
        """While it is there, the workers are to stop after their step."""
        return join(self.train, "stop")

    @property
    def attempts(self) -> str:
        """What was lost so far: restarts, and batches that are left out."""
        return join(self.train, "attempts.json")

    @property
    def rounds(self) -> str:
        """What workers of rounds tell each other, while training runs."""
        return join(self.train, "rounds")

    @property
    def metrics_parts(self) -> str:
        """Small files of metrics, written while training runs."""
        return join(self.train, "metrics")

    @property
    def metrics(self) -> str:
        """All metrics, one line a step, written at the end."""
        return join(self.train, "metrics.jsonl")

    @property
    def tensorboard(self) -> str:
        """An event file with the metrics of all steps, which TensorBoard opens."""
        return join(self.train, "tensorboard")

    @property
    def generate(self) -> str:
        """Generated text and samples."""
        return join(self.uri, "generate")

    @property
    def model(self) -> str:
        """The trained model's folder."""
        return join(self.uri, "model")

    @property
    def model_archive(self) -> str:
        """The model's folder as one file."""
        return join(self.uri, "model.zip")

    @property
    def stats(self) -> str:
        """Statistics of each step and merged ones."""
        return join(self.uri, "stats")

    def step_stats(self, step: str) -> str:
        """The statistics of one step."""
        return join(self.stats, f"{step}.json")

    def progress(self, step: str) -> str:
        """One small object that tells how far a running step is."""
        return join(self.uri, "progress", f"{step}.json")

    @classmethod
    def of_config(cls, config_uri: str) -> Run:
        """The run whose configuration stands at ``<lake>/runs/<run_id>/config.json``.

        Raises:
            InputError: if `config_uri` is not such a place.
        """
        parts = to_uri(config_uri).rsplit("/", 3)
        if len(parts) != 4 or parts[1] != "runs" or parts[3] != "config.json":
            raise InputError(f"{config_uri}: not a run's configuration; expected <lake>/runs/<run_id>/config.json")
        return cls(parts[0], unquote(parts[2]))


@dataclass(frozen=True)
class Lake:
    """The folder under which everything lies."""

    uri: str

    def run(self, run_id: str) -> Run:
        """The folder of a run."""
        return Run(self.uri, safe_run_id(run_id))

    @property
    def runs(self) -> str:
        """The folder of all runs."""
        return join(self.uri, "runs")

    def tokens(self, fingerprint: str) -> str:
        """A dataset of token shards."""
        return join(self.uri, "datasets", "tokens", fingerprint)

    def windows(self, fingerprint: str) -> str:
        """A dataset of window shards."""
        return join(self.uri, "datasets", "windows", fingerprint)

    def embeddings(self, fingerprint: str) -> str:
        """A dataset of vectors, one for each token."""
        return join(self.uri, "datasets", "embeddings", fingerprint)

    def package(self, sha256: str) -> str:
        """The packaged job, by the hash of its content."""
        return join(self.uri, "packages", sha256)

    def wheelhouse(self, sha256: str) -> str:
        """The wheels that nodes without internet install from, by the hash of their hashes."""
        return join(self.uri, "wheelhouses", sha256)

    @property
    def models(self) -> str:
        """Promoted models."""
        return join(self.uri, "models")

    @property
    def champion(self) -> str:
        """The pointer to the promoted model that is in use."""
        return join(self.models, "champion.json")

    @property
    def logs(self) -> str:
        """Where the cluster puts its logs, in EMR's own layout."""
        return join(self.uri, "logs")
