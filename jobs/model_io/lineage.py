"""The lineage of a model, stored as ``lineage.json`` in its folder: its inputs, settings, code and machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.errors import DamagedError, counted, reading
from jobs.lake.champion import model_name
from jobs.lake.layout import Lake
from jobs.lake.models import LINEAGE, folder_of_run, read_model_file, read_model_manifest
from jobs.lake.strict_json import to_json
from jobs.lake.uri import join

FORMAT_VERSION = 1
TRAINED = "trained"
"""The origin of a tokenizer that was learned from the run's own corpus."""


@dataclass(frozen=True)
class ModelOrigin:
    """The earlier model from whose weights a training started."""

    uri: str
    name: str
    """The hash of the model's content. If the model is in `Lake.models`, its folder has this name."""
    weights: str
    """The sha256 of the model's ``model.safetensors``."""
    run: str
    """The folder of the run that trained the model, below `Lake.runs`. Empty if the run is not known."""

    @classmethod
    def read(cls, uri: str, lake: Lake) -> ModelOrigin:
        """Return the model at `uri` as the origin of a training."""
        manifest = read_model_manifest(uri)
        if manifest is None:
            raise DamagedError(f"{uri}: has no manifest; choose another model")
        lineage = read_lineage(uri)
        run = lineage.run if lineage else folder_of_run(uri, lake)
        return cls(uri, model_name(manifest), manifest.fingerprint, run)


@dataclass(frozen=True)
class Lineage:
    """The content of ``lineage.json``: the inputs, settings, code, software and machine from which a model came."""

    run: str
    """The folder of the run that trained the model, below `Lake.runs`."""
    config: Mapping[str, Any]
    """The resolved configuration, without the settings of the deployment, since a model may be given to others."""
    datasets: Mapping[str, str]
    """A dict from the kind of each dataset of the run, such as ``tokens``, to the dataset's fingerprint."""
    corpus: Mapping[str, Any]
    """The number of files, their total bytes, a hash of names and contents, and the lake's file that lists them."""
    code: Mapping[str, str]
    """The version of Nightjar, the hash of each step's code, and the hash of the package if the code came from one."""
    software: Mapping[str, str]
    """The versions of Python and torch."""
    machine: Mapping[str, Any]
    """The engine, the number of workers, and the machine of rank 0."""
    tokenizer: Mapping[str, str]
    """Where the tokenizer came from, and the sha256 of its file."""
    start: ModelOrigin | None = None
    """The model that training started from; None for random weights."""
    embeddings: str = ""
    """The hash of the file or folder that `train.embeddings` names; "" if it names none."""
    evaluation_set: str = ""
    """The version of the pipeline's evaluation set when the model was made; "" if there was none."""
    format_version: int = field(default=FORMAT_VERSION)

    def to_json(self) -> bytes:
        """Return the content of ``lineage.json``."""
        return to_json(asdict(self), LINEAGE, ensure_ascii=False)

    def differences(self, other: Lineage) -> Iterator[str]:
        """Yield a text for each condition that differs, such as ``torch 2.9 there, 2.8 here``.

        "There" stands for this lineage, and "here" for `other`.
        """
        return differing(self.conditions, other.conditions)

    @property
    def conditions(self) -> dict[str, Any]:
        """Return everything that the weights depend on, except corpus and settings, as a dict from names to values."""
        datasets = {f"dataset of {kind}": name for kind, name in self.datasets.items()}
        known = self.conditions_of(self.machine, self.software, self.code)
        return {**known, **datasets, "tokenizer": self.tokenizer["sha256"]}

    @staticmethod
    def conditions_of(
        machine: Mapping[str, Any], software: Mapping[str, str], code: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return those of the `conditions` that are known before a training."""
        names = {name: f"code of the {name} step" for name in code} | {"version": "Nightjar"}
        of_code = {names[name]: value for name, value in code.items() if name != "package"}
        return {**software, **machine, **of_code}

    def essentials(self) -> dict[str, str]:
        """Return a short form of this lineage to show to a person, as a dict from names to texts."""
        start = self.start
        corpus, machine = self.corpus, self.machine
        size = f"{counted(corpus['files'], 'file')}, {counted(corpus['bytes'], 'byte')}"
        return {
            "corpus": f"{size}, sha256 {corpus['sha256']}",
            "datasets": ", ".join(f"{kind} {name[:12]}" for kind, name in self.datasets.items()),
            "started from": f"{start.run or start.uri}, weights {start.weights[:12]}" if start else "random weights",
            "tokenizer": f"{self.tokenizer['from'] or 'of unknown origin'}, sha256 {self.tokenizer['sha256'][:12]}",
            "evaluation set": self.evaluation_set or "none",
            "code": ", ".join(f"{name} {value[:12]}" for name, value in self.code.items()),
            "software": ", ".join(f"{name} {value}" for name, value in self.software.items()),
            "machine": ", ".join(f"{name} {value}" for name, value in machine.items()),
        }


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Yield a text for each name that is in both mappings with different values."""
    for name, value in there.items():
        if value != here.get(name, value):
            yield f"{name} {_shown(value)} there, {_shown(here[name])} here"


def _shown(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == hashlib.sha256().digest_size * 2 else text


def read_lineage(model_uri: str) -> Lineage | None:
    """Return the lineage of the model at `model_uri`, a folder or zip file.

    Return None if the model has no lineage, such as one made by an earlier version of Nightjar.

    Raises:
        DamagedError: if ``lineage.json`` has another format, or is missing though the manifest lists it.
    """
    manifest = read_model_manifest(model_uri)
    if manifest is None or not manifest.entries(LINEAGE):
        return None
    data, where = read_model_file(model_uri, LINEAGE), join(model_uri, LINEAGE)
    with reading(where, "train the model again"):
        values = json.loads(data)
        if values["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {values['format_version']}, written by another version of Nightjar")
        start = values.pop("start")
        return Lineage(**values, start=ModelOrigin(**start) if start else None)


def describe_corpus(files: Iterable[Mapping[str, Any]], listed_in: str) -> dict[str, Any]:
    """Return the value of `Lineage.corpus` for `files`, which the file `listed_in` of the lake lists.

    Each of `files` has a `name`, a `size` in bytes and a `sha256`.
    """
    listed = [(each["name"], each["sha256"], each["size"]) for each in files]
    lines = "".join(f"{sha256} {name}\n" for name, sha256, _ in sorted(listed))
    return {
        "files": len(listed),
        "bytes": sum(size for *_, size in listed),
        "sha256": hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest(),
        "listed_in": listed_in,
    }
