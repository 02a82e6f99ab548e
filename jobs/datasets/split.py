"""The split of documents into training and validation. Each document is split alone, so tasks can split shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.config import WindowsConfig
from jobs.datasets.shards import TokenShard
from jobs.sources.names import text_stem

_MIN_SOURCES = 20
_MIN_BLOCKS = 8
_MAX_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class SplitRule:
    """The rule that assigns each document to training or validation.

    With the same seed, a document stays on its side when other files are added. There are two exceptions: the blocks of
    a small corpus shrink so that each side has at least 8, and `auto` may choose another method.

    - `source`: whole files, drawn by a hash of their name; the share of validation is right only on average.
    - `block`: blocks of neighbouring documents, evenly spaced in each file; the share is exact to one block.
    - `hash`: single documents, drawn by a hash of their text; equal documents are on one side, neighbours are not.
    - `tail`: the last part of each file.
    """

    method: str
    valid_fraction: float
    seed: int
    block_bytes: int
    draw: int = 0
    """The number of earlier draws that left a side without a window, which happens with few documents."""

    @classmethod
    def choose(cls, config: WindowsConfig, sources: Sequence[tuple[str, int]]) -> SplitRule:
        """Return the rule for a corpus.

        `auto` takes `source` if there are at least 20 files, no file has more than a tenth of the text, and the draw
        gives validation between half of its share and twice its share. Otherwise it takes `block`. `sources` holds
        the names of the sources, and the bytes of text in each.
        """
        total = sum(size for _, size in sources)
        largest = int(total * min(config.valid_fraction, 1 - config.valid_fraction)) // _MIN_BLOCKS
        block_bytes = min(_MAX_BLOCK_BYTES, 1 << max(0, largest.bit_length() - 1))
        method = config.split
        if method == "auto":
            drawn = sum(
                size for name, size in sources if _uniform(config.seed, 0, text_stem(name)) < config.valid_fraction
            )
            comparable = len(sources) >= _MIN_SOURCES and max(size for _, size in sources) <= total / 10
            near = config.valid_fraction / 2 <= drawn / total <= min(1, config.valid_fraction * 2)
            method = "source" if comparable and near and drawn < total else "block"
        return cls(method, config.valid_fraction, config.seed, block_bytes)

    def is_valid(self, shard: TokenShard) -> npt.NDArray[np.bool_]:
        """Return a mask of the documents of a shard that are for validation."""
        if self.method == "hash":
            seeded = shard.hash ^ np.uint64(int(_uniform(self.seed, self.draw, "") * 2**64))
            return np.asarray(seeded < np.uint64(self.valid_fraction * 2**64))
        if self.method == "tail":
            sizes = np.array([size for _, size in shard.sources])[shard.source]
            return np.asarray(shard.position >= sizes * (1 - self.valid_fraction))
        # By the name without its format, so that the same text in another format is split in the same way.
        draws = np.array([_uniform(self.seed, self.draw, text_stem(name)) for name, _ in shard.sources])[shard.source]
        if self.method == "source":
            return np.asarray(draws < self.valid_fraction)
        block = (shard.position // self.block_bytes).astype(np.float64)
        before, after = (np.floor(border * self.valid_fraction + draws) for border in (block, block + 1))
        return np.asarray(after > before)


def _uniform(seed: int, draw: int, name: str) -> float:
    """Return a number in [0, 1) that depends on a seed, the number of the draw and a name alone."""
    digest = hashlib.blake2b(f"{seed}/{draw}/{name}".encode("utf-8", "surrogateescape"), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48
