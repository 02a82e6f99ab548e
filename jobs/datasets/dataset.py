"""What the datasets of tokens and of windows have in common: their statistics, publication and re-use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.lake.layout import Lake, Run
from jobs.lake.store import (
    Manifest,
    publish_manifest,
    read_json,
    read_manifest,
    verified_file,
    verify_sizes,
    write_file,
)
from jobs.tokenizer.tokenizer import Tokenizer

STATS = "stats.json"
TOKENIZER = "tokenizer.json"


def existing_stats(folder_uri: str) -> dict[str, Any] | None:
    """The statistics of the dataset at `folder_uri`, or None if there is no dataset.

    Raises:
        DamagedError: if one of its files is missing or has another size.
    """
    manifest = read_manifest(folder_uri)
    if manifest is None:
        return None
    verify_sizes(folder_uri, manifest)
    stats: dict[str, Any] = json.loads(_read(folder_uri, manifest, STATS))
    return stats


def publish_dataset(folder_uri: str, manifest: Manifest, stats: Mapping[str, Any]) -> None:
    """Write ``stats.json``, then the manifest, which makes the dataset exist.

    That another attempt was first is no harm: the fingerprint says that its dataset is equal. So must `stats` be, which
    rules out measured times: the file has one name, and the first attempt's manifest holds its hash.
    """
    entry = write_file(folder_uri, STATS, json.dumps(stats, indent=2).encode() + b"\n")
    publish_manifest(folder_uri, replace(manifest, files=(*manifest.files, entry)))


def used_datasets(run: Run) -> dict[str, str]:
    """The fingerprints of the datasets that a run uses so far, by kind."""
    try:
        datasets: dict[str, str] = read_json(run.datasets)
    except FileNotFoundError:
        return {}
    return datasets


def read_tokenizer(lake: Lake, fingerprint: str) -> Tokenizer:
    """The tokenizer of a tokens dataset.

    Raises:
        DamagedError: if it is missing or altered.
        FileNotFoundError: if there is no such dataset.
    """
    folder_uri = lake.tokens(fingerprint)
    manifest = read_manifest(folder_uri)
    if manifest is None:
        raise FileNotFoundError(folder_uri)
    return Tokenizer.from_json(_read(folder_uri, manifest, TOKENIZER))


def _read(folder_uri: str, manifest: Manifest, name: str) -> bytes:
    (entry,) = (entry for entry in manifest.files if entry.name == name)
    return verified_file(folder_uri, entry).read_bytes()
