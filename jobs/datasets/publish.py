"""Finds a dataset in the lake by its fingerprint, or makes and publishes it, and records its use in the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.errors import reading
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.runs import used_datasets
from jobs.lake.strict_json import finite, not_finite, to_json

Kind = Literal["tokens", "windows", "embeddings"]
STATS = "stats.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MadeDataset:
    """A dataset whose files are written, but not yet published."""

    files: Sequence[FileEntry]
    stats: Mapping[str, Any]
    """Statistics that are stored with the dataset, without measured times. Each attempt must compute the same values:
    all attempts write the same ``stats.json``, and the manifest of the first attempt holds the file's hash."""
    inputs: dict[str, Any]
    """The manifest's record of what the dataset was made of."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Statistics of this attempt alone, such as times; not stored with the dataset."""


def find_or_make(run: Run, kind: Kind, fingerprint: str, make: Callable[[str], MadeDataset]) -> dict[str, Any]:
    """Use the dataset with this fingerprint, or make and publish it, and record the fingerprint in the run.

    `make` writes the files of the dataset below the folder URI that it is called with. Another attempt may publish the
    dataset first. That is not an error, since equal fingerprints mean equal datasets.

    Returns:
        The statistics of the dataset; `reused` is True if the dataset existed before.
    """
    folder_uri = Lake(run.lake_uri).dataset(kind, fingerprint)
    stats = find_stats(folder_uri)
    if stats is not None:
        stats["reused"] = True
    else:
        made = make(folder_uri)
        made_stats = finite(dict(made.stats))
        if found := ", ".join(not_finite(made.stats)):
            log.warning("%s: %s; written as null", folder_uri, found)
        entry = store.write_file(folder_uri, STATS, to_json(made_stats, folder_uri))
        files = (*made.files, entry)
        store.publish_manifest(folder_uri, Manifest(kind, fingerprint, files, made_stats, made.inputs))
        stats = {**made_stats, "reused": False, **made.measured}
    used = used_datasets(run)
    if used.get(kind) != fingerprint:  # new tokens: the run drops the datasets made of its former tokens
        store.write_json(run.datasets, {**({} if kind == "tokens" else used), kind: fingerprint})
    return stats


def find_stats(folder_uri: str) -> dict[str, Any] | None:
    """Return the statistics of the dataset at `folder_uri`, and check its files. Return None if there is no dataset."""
    manifest = store.read_manifest(folder_uri)
    if manifest is None:
        return None
    store.verify_sizes(folder_uri, manifest)
    with reading(folder_uri, "delete it and run again"):
        (entry,) = manifest.entries(STATS)
        return dict(json.loads(store.read_file(folder_uri, entry)))
