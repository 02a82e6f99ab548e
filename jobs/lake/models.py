"""Finds the trained models of a lake, reads files of a model, and records which model a run uses."""

from __future__ import annotations

import errno
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from jobs.errors import DamagedError, InputError, did_you_mean, reading
from jobs.lake.champion import CHAMPION, champions_pipeline, check_model_files, no_champion_error, read_champion
from jobs.lake.layout import MANIFEST, Lake, Run
from jobs.lake.manifest import Manifest, parse_manifest
from jobs.lake.runs import names_of_runs, only_one, runs_named
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import to_json
from jobs.lake.uri import ending_of, join, relative_name, to_uri
from jobs.metrics.stats import UsedModelStats

CONFIG, TOKENIZER, LINEAGE = "config.json", "tokenizer.json", "lineage.json"


def find_model(name: str, lake: Lake, store: Store = ENVIRONMENT) -> str:
    """Return the URI of the folder or zip file of the model that `name` stands for.

    A name is a path, a URI, the id of a run, ``champion``, or ``champion:<pipeline>``.
    """
    if pipeline := champions_pipeline(name, lake):
        champion, _ = read_champion(pipeline, store)
        if champion is None:
            raise no_champion_error(pipeline, "give the id of a run, or check --lake", store)
        return champion.model_uri
    uri = to_uri(name)
    if ending_of(uri, (".zip",)) and store.exists(uri):
        return uri
    places = (uri, join(uri, "model"))
    for place in places:
        if _has_model(place, store):
            return place
    runs = [run for run in runs_named(name, lake, store) if _has_model(run.model, store)]
    if not runs:
        looked = f"looked in {', '.join(places)} and the runs of {lake.uri}"
        near = did_you_mean(name, [CHAMPION, *names_of_runs(lake, store)])
        raise InputError(f"{name}: no model found ({looked}){near or '; train one, or check --lake'}")
    return only_one(name, runs).model


def _has_model(uri: str, store: Store) -> bool:
    return store.exists(join(uri, MANIFEST)) and store.exists(join(uri, CONFIG))


@contextmanager
def open_archive(uri: str, store: Store = ENVIRONMENT) -> Iterator[zipfile.ZipFile]:
    """Open the zip file of a model. Raise DamagedError if the zip file, or a file read from it, is damaged."""
    try:
        with store.open_input(uri) as source, zipfile.ZipFile(source) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: an offset before the start
            raise
        raise DamagedError(f"{uri}: not a readable zip file ({error}); export it again") from None


def folder_of_run(model_uri: str, lake: Lake) -> str:
    """Return the run folder, below `Lake.runs`, that contains a model. Return "" if the model is outside of them."""
    if not model_uri.startswith(f"{lake.runs}/"):
        return ""
    return relative_name(model_uri, lake.runs).rpartition("/model")[0]


def read_model_manifest(uri: str, store: Store = ENVIRONMENT) -> Manifest | None:
    """Return the manifest of the model at `uri`, a folder or a zip file; None if there is no model."""
    if not ending_of(uri, (".zip",)):
        return store.read_manifest(uri)
    return parse_manifest(read_model_file(uri, MANIFEST, store), join(uri, MANIFEST)) if store.exists(uri) else None


def read_model_file(uri: str, name: str, store: Store = ENVIRONMENT) -> bytes:
    """Return the content of one file of the model at `uri`, a folder or a zip file.

    Raises:
        DamagedError: if the file is missing, truncated or altered, or the zip file cannot be read.
    """
    if ending_of(uri, (".zip",)):
        with open_archive(uri, store) as archive:
            try:
                return archive.read(name)
            except KeyError as error:
                raise DamagedError(f"{uri}: has no readable {name} ({error}); export it again") from None
    manifest = store.read_manifest(uri)
    entry = next((each for each in manifest.files if each.name == name), None) if manifest else None
    if entry is None:
        raise DamagedError(f"{uri}: the manifest does not list {name}; restore the model, or use another one")
    return store.read_file(uri, entry)


@dataclass(frozen=True)
class UsedModel:
    """The model that a run uses."""

    name: str
    """The model's name in the configuration."""
    uri: str
    """The model's folder or zip file."""
    fingerprint: str
    """The fingerprint in the model's manifest, which is the sha256 of its weights."""

    def to_stats(self) -> UsedModelStats:
        """Return the entries about this model for the statistics of a pipeline step."""
        return {"used_model": self.name, "used_model_uri": self.uri, "used_model_sha256": self.fingerprint}


def decide_used(run: Run, name: str, store: Store = ENVIRONMENT) -> UsedModel:
    """Return the model that a run uses. The first call records which model `name` stands for; later calls return it.

    So all attempts use the same model, even if another model becomes the champion in the meantime.

    Raises:
        InputError: if there is no such model, or the model at its URI was replaced after the first call.
        DamagedError: if a file of the model is missing.
    """
    known = read_used(run, store)
    if known is None:
        uri = find_model(name, Lake(run.lake_uri), store)
        decided = UsedModel(name, uri, check_complete(uri, store).fingerprint)
        store.publish(run.used, to_json(asdict(decided), run.used))
        known = read_used(run, store)
        assert known is not None
    if check_complete(known.uri, store).fingerprint != known.fingerprint:
        raise InputError(f"{known.uri}: this model was replaced after the run started; start a new run")
    return known


def read_used(run: Run, store: Store = ENVIRONMENT) -> UsedModel | None:
    """Return the model recorded for a run. Return None without a record. Raise DamagedError for a damaged record."""
    try:
        with reading(run.used, "delete it and start the run again"):
            return UsedModel(**json.loads(store.read_bytes(run.used)))
    except FileNotFoundError:
        return None


def parent_of(run: Run, store: Store = ENVIRONMENT) -> str:
    """Return the folder of the run whose model `run` started from or used. Return "" if this lake has no such run."""
    uri = _earlier_model(run, store)
    return folder_of_run(uri, Lake(run.lake_uri)) if uri else ""


def _earlier_model(run: Run, store: Store) -> str | None:
    """Return the URI of the model that a run started from or used. Return None if there is no such model."""
    if used := read_used(run, store):
        return used.uri
    try:
        with reading(run.start, "delete the run"):
            init = json.loads(store.read_bytes(run.start))["init"]
            return None if init is None else str(init)
    except FileNotFoundError:
        return None


def check_complete(uri: str, store: Store = ENVIRONMENT) -> Manifest:
    """Check that the model at `uri`, a folder or a zip file, is complete, and return its manifest.

    The manifest must list the files that every model has. In a folder, all listed files must exist with their sizes.

    Raises:
        DamagedError: if the manifest or a file is missing, or has the wrong size.
    """
    manifest = read_model_manifest(uri, store)
    if manifest is None:
        raise DamagedError(
            f"{join(uri, MANIFEST)}: missing, since the model was deleted or is not complete; use another model"
        )
    check_model_files(uri, manifest)
    if not ending_of(uri, (".zip",)):
        store.verify_sizes(uri, manifest)
    return manifest
