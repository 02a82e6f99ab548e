"""Computes the share of a corpus that is new to the model that training starts from (`train.epochs_of_new_text`)."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from jobs.errors import reading
from jobs.lake.layout import Lake
from jobs.lake.models import LINEAGE, read_model_file, read_model_manifest
from jobs.lake.names import below
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import join


def files_behind(model_uri: str, lake: Lake, store: Store = ENVIRONMENT) -> list[Mapping[str, Any]] | None:
    """Return the corpus files of the run that made a model, each with its `name`, `size` and `sha256`.

    Return None if the files are not known: the model was made by an earlier version of Nightjar or in another lake, or
    the run's dataset of tokens was deleted.
    """
    manifest = read_model_manifest(model_uri, store)
    if manifest is None or not manifest.entries(LINEAGE):
        return None
    with reading(join(model_uri, LINEAGE), "train the model again"):
        listed_in = str(json.loads(read_model_file(model_uri, LINEAGE, store))["corpus"]["listed_in"])
    tokens = store.read_manifest(below(lake.uri, listed_in.rpartition("/")[0]))
    return tokens.inputs["files"] if tokens else None


def share_of_new(files: Iterable[tuple[Hashable, int]], known: Iterable[Hashable]) -> float:
    """Return the share (0 to 1) of new bytes in a corpus: the size of its new files, divided by the size of all files.

    `files` holds, for each file of the corpus, a value that identifies the file, and its size in bytes. A file is new
    if this value is not in `known`.
    """
    known, listed = set(known), list(files)
    new = sum(size for identity, size in listed if identity not in known)
    return new / max(1, sum(size for _, size in listed))
