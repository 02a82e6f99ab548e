"""Finds the new documents that are nearly equal to each other or to decided documents.

Nearly equal documents have a MinHash key in common (see `jobs.corpus.near_keys`). All new documents that have the same
key form a set. A link is a pair: a new document, and a set that contains it. A set of one document is dropped if no
decided document has its key. Sets that share documents are connected: all their documents together form a group.

Each task takes one bucket, which is a range of keys. So no task holds the keys of all documents. The driver holds only
the links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from jobs.datasets.fixed_sides import LEFT_OUT, TRAIN, UNDECIDED, VALID, Decisions, Keys, SideCodes
from jobs.datasets.shards import TokenShard
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Engine
from jobs.lake.manifest import FileEntry

BUCKET_KEYS = 1 << 22  # approximate number of keys in a bucket; a task holds one bucket

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Links:
    """Pairs of a new document and a set that contains it. The documents of a set have a MinHash key in common."""

    hashes: Keys
    """For each link, the hash of the document's text."""
    sets: Numbers
    """For each link, the number of the set."""
    sides: SideCodes
    """For each set, the side of the decided documents that have its key; `UNDECIDED` if there are none."""


class Groups:
    """Groups of new documents that are connected: by a set that they share, or by a chain of such sets."""

    def __init__(self, links: Links, hashes: Keys) -> None:
        """Group the documents of `links`; `hashes` are those of all new documents in the order of the corpus."""
        order = np.argsort(hashes)
        ranks = order[np.searchsorted(hashes, links.hashes, sorter=order)]
        self.documents, self._members = np.unique(ranks, return_inverse=True)
        """`documents`: the positions in `hashes` of the documents that have links, ascending. `_members`: the document
        of each link, as an index into `documents`."""
        self._sets, self._sides = links.sets, links.sides
        self.earliest = _connect(self._members, links.sets, len(self.documents), len(links.sides))
        """For each of `documents`, the earliest document of its group, as an index into `documents`."""

    @property
    def num_followers(self) -> int:
        """The number of new documents that have a MinHash key of an earlier new document or of a decided document."""
        first = np.full(len(self._sides), len(self.documents))
        np.minimum.at(first, self._sets, self._members)
        follows = (self._members > first[self._sets]) | (self._sides[self._sets] != UNDECIDED)
        return len(np.unique(self._members[follows]))

    def follow(self, drawn: SideCodes) -> SideCodes:
        """Return the sides of all new documents. `drawn` holds the side that the draw alone would give each document.

        All documents of a group get the same side. It is the side of the decided documents that have a MinHash key of
        the group. If there are none, it is the drawn side of the group's earliest document. If they are on both sides,
        each document of the group gets a side separately (see `_settle`).
        """
        sides = drawn.copy()
        if len(self.documents):
            reached = [self._reached(side)[self.earliest] for side in (TRAIN, VALID)]
            chosen = np.where(reached[0], TRAIN, np.where(reached[1], VALID, drawn[self.documents][self.earliest]))
            sides[self.documents] = chosen
            self._settle(sides, drawn, reached[0] & reached[1])
        return sides

    def _reached(self, side: int) -> npt.NDArray[np.bool_]:
        """Find the groups that have a MinHash key in common with a decided document of `side`.

        Return a mask over `documents`. It is True at the earliest document of each of these groups.
        """
        reached = np.zeros(len(self.documents), np.bool_)
        reached[self.earliest[self._members[self._sides[self._sets] == side]]] = True
        return reached

    def _settle(self, sides: SideCodes, drawn: SideCodes, torn: npt.NDArray[np.bool_]) -> None:
        """Set `sides` for the documents that the mask `torn` marks: those of groups with keys of both sides.

        The documents are taken in the order of the corpus. Each gets the side of the decided or earlier documents that
        have a key in common with it, or else the drawn side. A document that has keys in common with documents of both
        sides is left out, and does not affect later documents.
        """
        links = np.flatnonzero(torn[self._members])
        links = links[np.argsort(self._members[links], kind="stable")]
        members, starts = np.unique(self._members[links], return_index=True)
        sets, of_set = self._sets[links].tolist(), bytearray(self._sides.tobytes())
        borders = [*starts.tolist(), len(sets)]
        for i, document in enumerate(self.documents[members].tolist()):
            own = sets[borders[i] : borders[i + 1]]
            found = {of_set[each] for each in own} - {UNDECIDED}
            if len(found) > 1:
                sides[document] = LEFT_OUT
                continue
            sides[document] = found.pop() if found else drawn[document]
            for each in own:
                of_set[each] = sides[document]


def _connect(members: Numbers, sets: Numbers, num_members: int, num_sets: int) -> Numbers:
    """Return, for each document, the earliest document that is connected to it.

    Document ``members[i]`` is in set ``sets[i]``. Documents in the same set are connected, directly or through other
    documents.
    """
    earliest = np.arange(num_members)
    while True:
        of_set = np.full(num_sets, num_members)
        np.minimum.at(of_set, sets, earliest[members])
        found = earliest.copy()
        np.minimum.at(found, members, of_set[sets])
        found = found[found]  # the first member's own first member, so that long chains take few iterations
        if np.array_equal(found, earliest):
            return earliest
        earliest = found


def find_links(tokens: TokensDataset, decisions: Decisions, num_keys: int, engine: Engine) -> Links:
    """Return the links of the undecided documents of a dataset. These documents have about `num_keys` keys in total."""
    num_buckets = 1 + num_keys // BUCKET_KEYS
    find = partial(
        find_in_bucket, entries=tokens.shards, tokens_uri=tokens.uri, decisions=decisions, num_buckets=num_buckets
    )
    found = engine.map(find, range(num_buckets), "find nearly equal documents")
    before = np.cumsum([0, *(len(part.sides) for part in found)]).tolist()
    return Links(
        np.concatenate([part.hashes for part in found]),
        np.concatenate([part.sets + first for part, first in zip(found, before, strict=False)]),
        np.concatenate([part.sides for part in found]),
    )


def find_in_bucket(
    bucket: int, *, entries: Sequence[FileEntry], tokens_uri: str, decisions: Decisions, num_buckets: int
) -> Links:
    """Return the links that result from the keys of one bucket, a range of keys."""
    width = 2**64 // num_buckets
    first, last = bucket * width, (bucket + 1) * width - 1 if bucket + 1 < num_buckets else 2**64 - 1
    keys, hashes = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    for entry in entries:
        shard = TokenShard.open(tokens_uri, entry)
        assert shard.near_keys is not None, "the tokenize step stores keys for this split"
        new = decisions.sides_of(shard.hash) == UNDECIDED
        of_new = shard.near_keys if new.all() else shard.near_keys[new]
        inside = (of_new >= np.uint64(first)) & (of_new <= np.uint64(last))
        keys.append(of_new[inside])
        hashes.append(np.repeat(shard.hash[new], inside.sum(axis=1)))
    return _link(np.concatenate(keys), np.concatenate(hashes), decisions, first, last)


def _link(keys: Keys, hashes: Keys, decisions: Decisions, first: int, last: int) -> Links:
    order = np.argsort(keys)
    keys, hashes = keys[order], hashes[order]
    sides = np.full(len(keys), UNDECIDED, np.uint8)
    for known, known_sides in decisions.keys_between(first, last):
        if len(known):
            place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            is_known = known[place] == keys
            sides[is_known] = known_sides[place[is_known]]
    is_new = np.diff(keys, prepend=keys[:1] ^ np.uint64(1)) != 0
    sets = np.cumsum(is_new) - 1
    kept = _is_shared(sets, sides)
    sets, hashes, sides = sets[kept], hashes[kept], sides[kept]
    order = np.lexsort((hashes, sets))
    sets, hashes, sides = sets[order], hashes[order], sides[order]
    # A text that occurs several times is one document.
    distinct = (np.diff(sets, prepend=-1) != 0) | (np.diff(hashes, prepend=hashes[:1] ^ np.uint64(1)) != 0)
    sets, hashes, sides = sets[distinct], hashes[distinct], sides[distinct]
    kept = _is_shared(sets, sides)
    _, one_of_each, sets = np.unique(sets[kept], return_index=True, return_inverse=True)
    return Links(hashes[kept], sets, sides[kept][one_of_each])


def _is_shared(sets: Numbers, sides: SideCodes) -> npt.NDArray[np.bool_]:
    """Return, for each link, whether its set has more than one document, or a decided side.

    `sets` and `sides` hold the set of each link, and the side of this set.
    """
    return np.asarray((np.bincount(sets, minlength=1)[sets] > 1) | (sides != UNDECIDED))
