"""The split of documents into training and validation.

Each document gets a draw, a number from 0 to 1, and is for validation if the draw is below a threshold. Long documents
are cut into pieces, each with a draw of its own. Between neighbouring pieces on different sides, some tokens are left
out: the gap. The rule needs only a shard and its entry in the manifest, so each task can split its own shards.

`split_share` chooses the method and the threshold. With ``windows.split=fixed``, `fixed_split` decides instead.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from jobs.config import WindowsConfig
from jobs.datasets.shards import TokenShard
from jobs.sources.names import text_stem

Indices = npt.NDArray[np.int64]

_PARTS_PER_SIDE = 8
_MAX_BLOCK_BYTES = 1 << 16
_GAPS_PER_PIECE = 4
_MIN_GAP_TOKENS = 13
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio: its multiples are spread evenly
_TWO_64 = 2.0**64
_BELOW_ONE = 1 - 2.0**-53


@dataclass(frozen=True)
class Segments:
    """The segments of a shard, in order. A segment is a document, or a part of one, that is wholly on one side."""

    document: Indices
    """The row of each segment's document in the shard."""
    begin: Indices
    end: Indices
    """Segment i has the tokens [begin[i], end[i]) of the shard."""
    is_valid: npt.NDArray[np.bool_]
    """Whether each segment is for validation."""
    goes_on: npt.NDArray[np.bool_]
    """Whether the document goes on after the segment. If so, the segment's last token becomes the end-of-text token."""

    @property
    def is_part(self) -> npt.NDArray[np.bool_]:
        """Whether each segment is only a part of its document."""
        follows = np.concatenate([[False], self.goes_on[:-1]]) if len(self.goes_on) else self.goes_on
        return self.goes_on | follows


@dataclass(frozen=True)
class _Pieces:
    """Whole documents, and the pieces of documents that are cut. Each has the tokens [begin, end) of the shard."""

    document: Indices
    index: Indices
    """The number of the piece in its document."""
    begin: Indices
    end: Indices
    position: Indices
    num_bytes: Indices
    """`position`: bytes of text before the piece in its source. `num_bytes`: bytes of text in the piece, but 0 for a
    whole document."""


class Split(Protocol):
    """A rule that assigns the documents of token shards to training or validation."""

    @property
    def method(self) -> str:
        """The name of the method."""

    @property
    def valid_fraction(self) -> float:
        """The wanted share of validation: a fraction of the whole text."""

    @property
    def draw(self) -> int:
        """A number that extends the seed. The documents' draws depend on both."""

    @property
    def threshold(self) -> float:
        """Documents with a draw below this are for validation."""

    def segments(self, shard: TokenShard) -> Segments:
        """Return the segments of a shard."""


@dataclass(frozen=True)
class SplitRule:
    """The rule that assigns each document to training or validation.

    A document's draw depends only on the seed and on the document. So with the same threshold, a document stays on its
    side when other files are added. There are two exceptions: the pieces and blocks of a small corpus grow with the
    corpus, and `auto` may choose another method. The methods differ in what gets a draw:

    - `source`: whole files. The draw is a hash of the file's name.
    - `block`: blocks of neighbouring documents. The blocks for validation are spread evenly over each file.
    - `hash`: single documents. The draw is a hash of the text, so equal documents are on the same side.
    - `tail`: positions in a file. The last part of each file is for validation, but never the file's beginning.
    """

    method: str
    valid_fraction: float
    seed: int
    block_bytes: int
    """Bytes of text in a block, and in a piece of a long document. With `tail`, pieces depend on the file's size."""
    smaller_bytes: int
    """Bytes of text that the smaller of the two sides should get."""
    gap_tokens: int
    """Tokens that are left out at a cut, so that no window and no n-gram of the document has tokens of both sides."""
    threshold: float
    """Documents with a draw below this are for validation. It is the wanted share itself, or another value that gives a
    validation share nearer to the wanted share."""
    longest: float = 1 / _PARTS_PER_SIDE
    """A document is cut if it is longer than this fraction of the smaller side's text, and has enough tokens."""
    draw: int = 0
    """A number from 0 that extends the seed. With few documents or files, some numbers do not give the wanted share."""

    @classmethod
    def of(cls, method: str, settings: WindowsConfig, total_bytes: int) -> SplitRule:
        """Return the rule of a method for a corpus with `total_bytes` of text."""
        smaller = int(total_bytes * min(settings.valid_fraction, 1 - settings.valid_fraction))
        block_bytes = min(_MAX_BLOCK_BYTES, 1 << max(0, (smaller // _PARTS_PER_SIDE).bit_length() - 1))
        gap = max(settings.size, settings.leak_ngram, _MIN_GAP_TOKENS)
        fraction = settings.valid_fraction
        return cls(method, fraction, settings.seed, block_bytes, smaller, gap, fraction)

    def draws(self, shard: TokenShard) -> tuple[_Pieces, npt.NDArray[np.float64]]:
        """Return the pieces of a shard's documents, and the draw of each."""
        pieces = self._divide(shard)
        source, sizes = shard.source[pieces.document], np.array([size for _, size in shard.sources])
        if self.method == "tail":
            end = sizes[source]
            # No document precedes the first document of a file, so it cannot be a tail.
            return pieces, np.where(pieces.position == 0, 1.0, (end - pieces.position - 1) / end)
        if self.method == "hash":
            seed = np.uint64(int(_uniform(self.seed, self.draw, "") * 2**64))
            return pieces, ((shard.hash[pieces.document] ^ seed) + pieces.index.astype(np.uint64) * _GOLDEN) / _TWO_64
        # The name is hashed without its ending, so that the same text in another format is split in the same way.
        by_name = np.array([_uniform(self.seed, self.draw, text_stem(name)) for name, _ in shard.sources])[source]
        if self.method == "source":
            return pieces, by_name
        return pieces, self._draw_blocks(
            pieces.position // np.where(pieces.num_bytes, pieces.num_bytes, self.block_bytes), by_name
        )

    def _draw_blocks(self, block: Indices, by_name: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the draw of each block. Blocks with draws below the wanted share are evenly spaced in each file.

        `block` holds the numbers of the blocks in their files, `by_name` a hash of the file's name in [0, 1).
        """
        before, after = (np.floor(border * self.valid_fraction + by_name) for border in (block, block + 1))
        order = ((by_name * _TWO_64).astype(np.uint64) + block.astype(np.uint64) * _GOLDEN) / _TWO_64
        share = self.valid_fraction
        return np.where(after > before, share * np.minimum(order, _BELOW_ONE), share + (1 - share) * order)

    def segments(self, shard: TokenShard) -> Segments:
        """Return the segments of a shard, without the gaps."""
        pieces, draws = self.draws(shard)
        is_valid = draws < self.threshold
        same = (pieces.document[1:] == pieces.document[:-1]) & (is_valid[1:] == is_valid[:-1])
        first, last = (np.flatnonzero(np.insert(~same, place, True)) for place in (0, len(same)))
        begin, end = pieces.begin[first], pieces.end[last]
        document, is_valid = pieces.document[first], is_valid[first]
        goes_on = np.append(document[1:] == document[:-1], False)
        # The gap takes tokens of both sides in proportion to their shares, which therefore stay the same.
        given = np.where(is_valid, self.valid_fraction, 1 - self.valid_fraction)
        before = np.clip(np.rint(given * self.gap_tokens).astype(np.int64), 1, self.gap_tokens)
        end = end - np.where(goes_on, before - 1, 0)  # one token of the gap stays: it becomes the end-of-text token
        begin[1:] += np.where(goes_on[:-1], self.gap_tokens - before[:-1], 0)
        return Segments(document, begin, end, is_valid, goes_on)

    def _divide(self, shard: TokenShard) -> _Pieces:
        """Return the pieces of a shard. Only documents that are long and have enough tokens are divided."""
        smaller, piece = np.full(len(shard.ends), self.smaller_bytes), np.full(len(shard.ends), self.block_bytes)
        if self.method == "tail":  # the tail is a part of each file, so its file decides whether a document is long
            sizes = np.array([size for _, size in shard.sources]) * min(self.valid_fraction, 1 - self.valid_fraction)
            smaller = sizes.astype(np.int64)[shard.source]
            piece = np.maximum(smaller // _PARTS_PER_SIDE, 1)
        num_bytes, lengths = shard.num_bytes.astype(np.int64), shard.lengths
        counts = np.minimum(-(-num_bytes // piece), lengths // (_GAPS_PER_PIECE * self.gap_tokens))
        counts = np.where((num_bytes > smaller * self.longest) & (self.method != "source"), np.maximum(counts, 1), 1)
        document = np.repeat(np.arange(len(counts)), counts)
        index = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        count, length, start = counts[document], lengths[document], (shard.ends - lengths)[document]
        return _Pieces(
            document,
            index,
            start + length * index // count,
            start + length * (index + 1) // count,
            shard.position[document] + num_bytes[document] * index // count,
            np.where(count > 1, num_bytes[document] // count, 0),
        )


def _uniform(seed: int, draw: int, name: str) -> float:
    """Return a number in [0, 1), computed from `seed`, `draw` and `name` alone. `draw` counts the tries with a seed."""
    digest = hashlib.blake2b(f"{seed}/{draw}/{name}".encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48
