"""Exact duplicates: of documents with the same text, all but the first in canonical order are dropped.

Two rounds of tasks, with hashes in files between them: first each split writes those of its documents, then each bucket
of hashes is looked through for repetitions. So no task holds more than a bucket, and the driver nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.config import TokenizeConfig
from jobs.lake import read_bytes, write_bytes
from jobs.paths import join
from jobs.text.corpus import ByteRange
from jobs.text.reading import read_documents

BUCKET_DOCUMENTS = 1 << 24


def write_hashes(item: tuple[int, Sequence[ByteRange]], *, folder_uri: str, settings: TokenizeConfig) -> int:
    """Write the hashes of a split's documents below `folder_uri`; return their number."""
    number, parts = item
    found = [batch.texts.hashes() for part in parts for batch in read_documents(part, settings)]
    hashes = np.concatenate([np.zeros(0, np.uint64), *found])
    _write(join(folder_uri, f"hashes/{number}.npy"), hashes)
    return len(hashes)


def write_repetitions(bucket: int, *, folder_uri: str, num_splits: int, num_buckets: int) -> int:
    """For each split, write which of its documents in a bucket of hashes came before; return the number of all."""
    places, hashes = [], []
    for number in range(num_splits):
        of_split = _read(join(folder_uri, f"hashes/{number}.npy"))
        places.append(np.flatnonzero(of_split % np.uint64(num_buckets) == bucket))
        hashes.append(of_split[places[-1]])
    together = np.concatenate(hashes)
    repeated = np.ones(len(together), np.bool_)
    repeated[np.unique(together, return_index=True)[1]] = False
    borders = np.cumsum([len(part) for part in hashes])[:-1]
    for number, (place, mask) in enumerate(zip(places, np.split(repeated, borders), strict=True)):
        _write(join(folder_uri, f"repeated/{number}-{bucket}.npy"), place[mask])
    return int(repeated.sum())


@dataclass(frozen=True)
class Repetitions:
    """What `write_repetitions` wrote for all buckets."""

    folder_uri: str
    num_buckets: int

    def of_split(self, number: int) -> set[int]:
        """Which documents of a split came before."""
        names = (f"repeated/{number}-{bucket}.npy" for bucket in range(self.num_buckets))
        return {place for name in names for place in _read(join(self.folder_uri, name)).tolist()}


def _write(uri: str, values: npt.NDArray[np.generic]) -> None:
    sink = io.BytesIO()
    np.save(sink, values, allow_pickle=False)
    write_bytes(uri, sink.getvalue())


def _read(uri: str) -> npt.NDArray[np.uint64]:
    values: npt.NDArray[np.uint64] = np.load(io.BytesIO(read_bytes(uri)), allow_pickle=False)
    return values
