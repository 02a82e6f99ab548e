"""Finds documents whose text repeats that of an earlier document of the corpus, exactly or nearly.

Documents are duplicates if they share a key (a 64-bit hash). To find exact duplicates, each document has one key: the
hash of its text. To find near duplicates, each document has several keys (see `near_keys`). First, one task for each
input split (a group of byte ranges) writes the keys of the split's documents. The keys are divided into buckets by
their value. Then one task for each bucket looks for keys that occur more than once.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.near_keys import NUM_KEYS, Keys, near_keys
from jobs.corpus.reading import read_documents
from jobs.corpus.texts import Texts
from jobs.engine.base import Engine
from jobs.lake.store import delete_folder, read_bytes, write_bytes
from jobs.lake.uri import join

BUCKET_KEYS = 1 << 24  # approximate; a task holds one bucket in memory


@dataclass(frozen=True)
class Duplicates:
    """The documents of a corpus that repeat an earlier document. They are listed in files below a folder."""

    folder_uri: str
    num_buckets: int
    counted_as: str
    """The name of the statistic that counts the dropped documents."""

    def of_split(self, number: int) -> set[int]:
        """Return the positions of the duplicates in the input split `number`. Its documents are counted from 0."""
        names = (f"repeated/{number}-{bucket}.npy" for bucket in range(self.num_buckets))
        return {position for name in names for position in _read(join(self.folder_uri, name)).tolist()}


@contextmanager
def find_duplicates(
    folder_uri: str, splits: Sequence[Sequence[ByteRange]], settings: TokenizeConfig, engine: Engine
) -> Iterator[Duplicates | None]:
    """Find the documents that are dropped as duplicates. Yield None if the settings do not drop duplicates.

    The duplicates are listed in files below `folder_uri`. These files are deleted when the ``with`` block ends.
    """
    if not (settings.drop_duplicates or settings.drop_near_duplicates):
        yield None
        return
    scratch_uri = join(folder_uri, f"scratch-{uuid.uuid4().hex[:12]}")
    try:
        write = partial(write_keys, folder_uri=scratch_uri, settings=settings)
        num_buckets = sum(engine.map(write, list(enumerate(splits)), "hash the documents")) // BUCKET_KEYS + 1
        find = partial(
            write_duplicates,
            folder_uri=scratch_uri,
            num_splits=len(splits),
            num_buckets=num_buckets,
            keys_per_document=NUM_KEYS if settings.drop_near_duplicates else 1,
        )
        engine.map(find, range(num_buckets), "find duplicates")
        name = "near_duplicate_documents" if settings.drop_near_duplicates else "duplicate_documents"
        yield Duplicates(scratch_uri, num_buckets, name)
    finally:
        delete_folder(scratch_uri)


def write_keys(item: tuple[int, Sequence[ByteRange]], *, folder_uri: str, settings: TokenizeConfig) -> int:
    """Write the keys of an input split's documents below `folder_uri`, and return the number of keys.

    `item` holds the number of the split and its byte ranges.
    """
    number, parts = item
    keys_of: Callable[[Texts], Keys] = near_keys if settings.drop_near_duplicates else Texts.hashes
    found = [keys_of(batch.texts).reshape(-1) for part in parts for batch in read_documents(part, settings)]
    keys = np.concatenate([np.zeros(0, np.uint64), *found])
    _write(join(folder_uri, f"keys/{number}.npy"), keys)
    return len(keys)


def write_duplicates(
    bucket: int, *, folder_uri: str, num_splits: int, num_buckets: int, keys_per_document: int
) -> None:
    """Find the duplicates by the keys of one bucket: documents that share such a key with an earlier document.

    For each input split, write the positions of the duplicates in the split.
    """
    positions, keys = [], []
    for number in range(num_splits):
        of_split = _read(join(folder_uri, f"keys/{number}.npy"))
        positions.append(np.flatnonzero(of_split % np.uint64(num_buckets) == bucket))
        keys.append(of_split[positions[-1]])
    all_keys = np.concatenate(keys)
    repeated = np.ones(len(all_keys), np.bool_)
    repeated[np.unique(all_keys, return_index=True)[1]] = False
    borders = np.cumsum([len(part) for part in keys])[:-1]
    for number, (position, mask) in enumerate(zip(positions, np.split(repeated, borders), strict=True)):
        _write(join(folder_uri, f"repeated/{number}-{bucket}.npy"), np.unique(position[mask] // keys_per_document))


def _write(uri: str, values: npt.NDArray[np.generic]) -> None:
    sink = io.BytesIO()
    np.save(sink, values, allow_pickle=False)
    write_bytes(uri, sink.getvalue())


def _read(uri: str) -> Keys:
    values: Keys = np.load(io.BytesIO(read_bytes(uri)), allow_pickle=False)
    return values
