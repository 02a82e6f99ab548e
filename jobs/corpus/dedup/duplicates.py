"""Duplicates: of documents with the same text, or nearly the same, all but the first in canonical order are dropped.

Documents are the same if they share a key: the hash of their text, or one of several (see `minhash`). Two rounds of
tasks, with keys in files between them: first each split writes those of its documents, then each bucket of keys is
looked through for repetitions. So no task holds more than a bucket, and the driver nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.config import TokenizeConfig
from jobs.corpus.dedup.minhash import NUM_KEYS, near_keys
from jobs.corpus.reading import read_documents
from jobs.corpus.splits import ByteRange
from jobs.corpus.texts import Texts
from jobs.lake.store import read_bytes, write_bytes
from jobs.lake.uri import join

Keys = npt.NDArray[np.uint64]

BUCKET_KEYS = 1 << 24


def write_keys(item: tuple[int, Sequence[ByteRange]], *, folder_uri: str, settings: TokenizeConfig) -> int:
    """Write the keys of a split's documents below `folder_uri`; return their number."""
    number, parts = item
    keys_of: Callable[[Texts], Keys] = near_keys if settings.drop_near_duplicates else Texts.hashes
    found = [keys_of(batch.texts).reshape(-1) for part in parts for batch in read_documents(part, settings)]
    keys = np.concatenate([np.zeros(0, np.uint64), *found])
    _write(join(folder_uri, f"keys/{number}.npy"), keys)
    return len(keys)


def write_repetitions(bucket: int, *, folder_uri: str, num_splits: int, num_buckets: int, keys_each: int) -> int:
    """For each split, write which of its documents have a key of a bucket that came before; return the number of all.

    Args:
        bucket: The bucket.
        folder_uri: What `write_keys` was given.
        num_splits: How many splits it was called for.
        num_buckets: A key is in one of so many buckets.
        keys_each: Each document has so many keys, one after the other.
    """
    places, keys = [], []
    for number in range(num_splits):
        of_split = _read(join(folder_uri, f"keys/{number}.npy"))
        places.append(np.flatnonzero(of_split % np.uint64(num_buckets) == bucket))
        keys.append(of_split[places[-1]])
    together = np.concatenate(keys)
    repeated = np.ones(len(together), np.bool_)
    repeated[np.unique(together, return_index=True)[1]] = False
    borders = np.cumsum([len(part) for part in keys])[:-1]
    for number, (place, mask) in enumerate(zip(places, np.split(repeated, borders), strict=True)):
        _write(join(folder_uri, f"repeated/{number}-{bucket}.npy"), np.unique(place[mask] // keys_each))
    return int(repeated.sum())


def keys_of_each(settings: TokenizeConfig) -> int:
    """How many keys `write_keys` writes for each document."""
    return NUM_KEYS if settings.drop_near_duplicates else 1


@dataclass(frozen=True)
class Repetitions:
    """What `write_repetitions` wrote for all buckets."""

    folder_uri: str
    num_buckets: int
    counted_as: str
    """What the statistics call a document that is dropped."""

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
