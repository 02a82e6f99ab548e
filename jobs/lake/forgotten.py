"""The list of a lake's forgotten documents. Forgotten documents are left out of every corpus.

For each document, the file `Lake.forgotten` has the hash of its text, and when, by whom and why it was forgotten. The
text itself is not stored. Each change of the file is one conditional write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

from jobs.errors import LakeError, reading
from jobs.lake.champion import utc_now
from jobs.lake.layout import Lake
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import to_json

_MAX_RACES = 8


@dataclass(frozen=True)
class Forgotten:
    """An entry in the list of forgotten documents."""

    hash: int
    """The hash of the document's text, as `jobs.corpus.texts.Texts.hashes` computes it."""
    time: str
    """When the document was added to the list, as an ISO 8601 time in UTC."""
    by: str
    """Who added the document to the list."""
    why: str

    @property
    def since(self) -> float:
        """When the document was added to the list, in seconds since 1970."""
        return datetime.fromisoformat(self.time).timestamp()


def read_forgotten(lake: Lake, store: Store = ENVIRONMENT) -> tuple[Forgotten, ...]:
    """Return the forgotten documents of a lake, in the file's order. Raise DamagedError if the file is damaged."""
    return _read(lake, store)[0]


def to_hex(document: int) -> str:
    """Return the hash of a document as files and commands show it: 16 hexadecimal digits."""
    return f"{document:016x}"


def hashes_of(forgotten: Iterable[Forgotten]) -> tuple[int, ...]:
    """Return the hashes of forgotten documents in ascending order."""
    return tuple(sorted(each.hash for each in forgotten))


def without_known(forgotten: Iterable[Forgotten], hashes: Iterable[int]) -> list[int]:
    """Return those of `hashes` that are not in `forgotten`, without repetitions."""
    known = set(hashes_of(forgotten))
    return [each for each in dict.fromkeys(hashes) if each not in known]


def forget(lake: Lake, hashes: Iterable[int], by: str, why: str, store: Store = ENVIRONMENT) -> tuple[Forgotten, ...]:
    """Add documents to the list of forgotten ones, and return those that were not in the list before.

    Raises:
        LakeError: if other programs change the file during each of several tries.
    """
    wanted, time = tuple(hashes), utc_now()
    for _ in range(_MAX_RACES):
        before, version = _read(lake, store)
        new = tuple(Forgotten(each, time, by, why) for each in without_known(before, wanted))
        rows = [asdict(each) | {"hash": to_hex(each.hash)} for each in (*before, *new)]
        content = to_json({"documents": rows}, lake.forgotten, ensure_ascii=False)
        if not new or (
            store.replace(lake.forgotten, content, version) if version else store.publish(lake.forgotten, content)
        ):
            # If the response to a successful write was lost, this call's own entries are already in `before`.
            return new or tuple(each for each in before if (each.time, each.by, each.why) == (time, by, why))
    raise LakeError(f"{lake.forgotten}: other programs changed it {_MAX_RACES} times in a row; try again")


def _read(lake: Lake, store: Store) -> tuple[tuple[Forgotten, ...], str]:
    """Return the forgotten documents and the version of the file. The version is "" if there is no file."""
    try:
        data, version = store.read_version(lake.forgotten)
    except FileNotFoundError:
        return (), ""
    with reading(lake.forgotten, "restore it from a copy, or delete it and forget the documents again"):
        rows = json.loads(data)["documents"]
        return tuple(Forgotten(**{**row, "hash": int(row["hash"], 16)}) for row in rows), version
