"""The decided sides of a pipeline: which documents are for training, for validation, or left out.

A decision never changes. The decisions are in the folder `Pipeline.split`. A version of them is a manifest,
``<number>.json``, that lists files of two kinds:

- ``sides/*.arrow``: the hash of each decided document, and its side;
- ``keys/*.arrow``: the MinHash keys of documents that are not left out (see `jobs.corpus.near_keys`). Each key comes
  with the side of the documents that have it. Nearly equal documents have at least one key in common.

Each file has two columns: ``key`` (uint64, ascending), which is a document's hash or a MinHash key, and ``side``
(uint8). A version lists the files of the previous version and new files. To keep the list short, small files are merged
with the new ones into another file. No file is ever changed or deleted. The manifest is written after its files, so a
version exists whole or not at all. It is written only if no other run has written this version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.datasets.shards import arrow_file
from jobs.lake import store
from jobs.lake.cache import verified_file
from jobs.lake.layout import Pipeline
from jobs.lake.manifest import FileEntry, Manifest, parse_manifest
from jobs.lake.uri import join
from jobs.sources.fixed_split import versions_of

TRAIN, VALID, LEFT_OUT, UNDECIDED = 0, 1, 2, 255
"""The sides of a document. `LEFT_OUT` is for documents nearly equal to both training and validation documents."""
SIDES_OF, KEYS_OF = "sides/", "keys/"

Keys = npt.NDArray[np.uint64]
SideCodes = npt.NDArray[np.uint8]

_LAST_VERSIONS, _OPEN_FILES = 32, 64
_MERGED_ROWS = 1 << 20  # the most rows of a merged file, which are held in memory


@dataclass(frozen=True)
class Decisions:
    """A version of the decided sides of a pipeline."""

    folder_uri: str
    number: int = 0
    """The number of the version; 0 if nothing is decided yet."""
    files: tuple[FileEntry, ...] = ()
    rule: Mapping[str, Any] = field(default_factory=dict)
    """How the sides of new documents are decided: the seed, the number ``draw`` that extends it, the threshold, and the
    settings that divide text into documents. The rule never changes."""

    def sides_of(self, hashes: Keys) -> SideCodes:
        """Return the side of each document, given the hashes of the texts. Undecided documents get `UNDECIDED`."""
        found = np.full(len(hashes), UNDECIDED, np.uint8)
        for entry in self._files(SIDES_OF):
            keys, sides = _read(self.folder_uri, entry)
            place = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
            is_found = keys[place] == hashes
            found[is_found] = sides[place[is_found]]
        return found

    def keys_between(self, first: int, last: int) -> Iterator[tuple[Keys, SideCodes]]:
        """Yield the MinHash keys from `first` to `last` (both included) of each file, ascending, with their sides."""
        for entry in self._files(KEYS_OF):
            keys, sides = _read(self.folder_uri, entry)
            begin = int(np.searchsorted(keys, np.uint64(first)))
            end = int(np.searchsorted(keys, np.uint64(last), "right"))
            yield keys[begin:end], sides[begin:end]

    def _files(self, kind: str) -> list[FileEntry]:
        return [entry for entry in self.files if entry.name.startswith(kind)]


def read_decisions(pipeline: Pipeline) -> Decisions:
    """Return the latest version of a pipeline's decisions."""
    versions = versions_of(pipeline)
    return _read_version(pipeline, *versions[-1]) if versions else Decisions(pipeline.split)


def find_growth(pipeline: Pipeline, run: str) -> dict[str, Any]:
    """Return the statistics of the version that a run added. `run` is the run's folder.

    Only the latest versions are searched. Return an empty dict if the run added none of them.
    """
    for _, uri in reversed(versions_of(pipeline)[-_LAST_VERSIONS:]):
        manifest = parse_manifest(store.read_bytes(uri), uri)
        if manifest.inputs["run"] == run:
            return manifest.counts
    return {}


def append(
    before: Decisions, new: Sequence[FileEntry], rule: Mapping[str, Any], run: str, stats: dict[str, Any]
) -> bool:
    """Publish the version that follows `before`. Return False if another run has published this version already.

    Args:
        before: The latest version.
        new: The new files, below the same folder as those of `before`.
        rule: The rule of the pipeline; equal to that of `before` if `before` has one.
        run: The folder of the run that made the new decisions.
        stats: Statistics of the new documents. They are only shown to users.
    """
    files = [*before.files]
    for kind in (SIDES_OF, KEYS_OF):
        files = _merged(before.folder_uri, files, [entry for entry in new if entry.name.startswith(kind)], kind)
    number = before.number + 1
    manifest = Manifest("split", f"{number:08d}", tuple(files), stats, {"rule": dict(rule), "run": run})
    return store.publish(join(before.folder_uri, f"{number:08d}.json"), manifest.to_json())


def write_decisions(folder_uri: str, kind: str, keys: Keys, sides: SideCodes) -> FileEntry:
    """Write a file of decisions. `kind` is `SIDES_OF` or `KEYS_OF`.

    `keys` may contain a key several times, always with the same side. The file contains it once.
    """
    keys, first = np.unique(keys, return_index=True)
    batch = pa.RecordBatch.from_pydict({"key": pa.array(keys), "side": pa.array(sides[first])})
    return store.write_shard(folder_uri, f"{kind}decided.arrow", arrow_file(batch), rows=len(keys))


def _merged(folder_uri: str, files: list[FileEntry], new: list[FileEntry], kind: str) -> list[FileEntry]:
    """Return `files` with the `new` files added.

    While the last file of this `kind` has at most as many rows as the new files, it is merged with them into one file.
    """
    kept, merged = [entry for entry in files if entry.name.startswith(kind)], list(new)
    rows = sum(entry.counts["rows"] for entry in new)
    while kept and merged and kept[-1].counts["rows"] <= rows <= _MERGED_ROWS - kept[-1].counts["rows"]:
        merged.insert(0, kept.pop())
        rows += merged[0].counts["rows"]
    if len(merged) > len(new):
        parts = [_read(folder_uri, entry) for entry in merged]
        keys, sides = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        merged = [write_decisions(folder_uri, kind, keys, sides)]
    return [*(entry for entry in files if not entry.name.startswith(kind)), *kept, *merged]


def _read_version(pipeline: Pipeline, number: int, uri: str) -> Decisions:
    manifest = parse_manifest(store.read_bytes(uri), uri)
    return Decisions(pipeline.split, number, manifest.files, manifest.inputs["rule"])


def _read(folder_uri: str, entry: FileEntry) -> tuple[Keys, SideCodes]:
    """Return the memory-mapped columns of a file of decisions. The file stays open for later calls."""
    return _open(folder_uri, entry.name, entry.size, entry.sha256)


@lru_cache(maxsize=_OPEN_FILES)
def _open(folder_uri: str, name: str, size: int, sha256: str) -> tuple[Keys, SideCodes]:
    path = os.fsencode(verified_file(folder_uri, FileEntry(name, size, sha256)))
    with pa.memory_map(path) as file:  # type: ignore[arg-type]  # bytes work, too, for names that are not UTF-8
        batch = pa.ipc.open_file(file).get_batch(0)
    return batch.column("key").to_numpy(), batch.column("side").to_numpy()
