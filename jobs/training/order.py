"""The sample order: the order in which windows are trained on, a function of the seed and the epoch alone.

In each epoch the shards are permuted and cut into blocks of consecutive shards. Within a block, all windows are
shuffled. So a worker needs the shards of only one block at a time, and any range of the order can be computed without
an array as long as the corpus. Epochs follow each other without end. With global batches of B windows, batch b consists
of the positions ``[b * B, (b + 1) * B)`` for any number of workers, and each worker takes its share of them.

A training that ends within the first epoch uses only the windows of the first blocks. If the training must
use all text evenly, an epoch has only a share of the windows of each shard, and each epoch has other windows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

Ids = npt.NDArray[np.int64]
BLOCK_SHARDS = 8


class SampleOrder:
    """A pseudo-random order of windows. An epoch has every window once, or `share` of the windows of each shard.

    The id of a window is its position in the dataset: shards in their order, and windows in their order in the shard.
    """

    def __init__(
        self, windows_per_shard: Sequence[int], seed: int, block_shards: int = BLOCK_SHARDS, share: float = 1.0
    ) -> None:
        """Prepare the order of the windows in the shards. An epoch has `share` of the windows of each shard."""
        self._sizes = np.asarray(windows_per_shard, dtype=np.int64)
        self._first_ids = np.cumsum(self._sizes) - self._sizes
        self._counts = np.ceil(self._sizes * share).astype(np.int64)
        self._seed = seed
        self._block_shards = block_shards
        self._epoch = -1
        self._blocks: list[Ids] = []  # the shards of each block of this epoch
        self._starts = np.zeros(0, np.int64)  # the position at which each block starts
        self._block = -1, -1
        self._ids = np.zeros(0, np.int64)  # the shuffled windows of this block of an epoch
        self.num_windows = int(self._counts.sum())
        if not self.num_windows:
            raise ValueError("there are no windows to order")

    def take(self, start: int, stop: int) -> Ids:
        """Return the ids of the windows at positions `start` to `stop` (exclusive) of the endless order, int64."""
        pieces = [np.zeros(0, np.int64)]
        while start < stop:
            epoch, position = divmod(start, self.num_windows)
            piece = self._from_block(epoch, position)[: stop - start]
            pieces.append(piece)
            start += len(piece)
        return np.concatenate(pieces)

    def _from_block(self, epoch: int, position: int) -> Ids:
        """Return the ids from `position` in the epoch to the end of the block that contains this position."""
        if self._epoch != epoch:
            self._arrange(epoch)
        block = int(np.searchsorted(self._starts, position, side="right")) - 1
        if self._block != (epoch, block):
            self._block, self._ids = (epoch, block), self._shuffled(epoch, block)
        return self._ids[position - int(self._starts[block]) :]

    def _arrange(self, epoch: int) -> None:
        shards = np.flatnonzero(self._counts)
        shards = shards[_permutation(len(shards), self._seed, epoch, 0)]
        starts = np.cumsum(self._counts[shards]) - self._counts[shards]
        firsts = range(0, len(shards), self._block_shards)
        self._epoch, self._starts = epoch, starts[firsts]
        self._blocks = [shards[first : first + self._block_shards] for first in firsts]

    def _shuffled(self, epoch: int, block: int) -> Ids:
        ids = np.concatenate([self._of_shard(epoch, int(shard)) for shard in self._blocks[block]])
        return ids[_permutation(len(ids), self._seed, epoch, 1 + block)]

    def _of_shard(self, epoch: int, shard: int) -> Ids:
        size, count = int(self._sizes[shard]), int(self._counts[shard])
        drawn = np.arange(size) if count == size else _permutation(size, self._seed, epoch, 0, 1 + shard)[:count]
        return np.asarray(self._first_ids[shard] + drawn)


def seed_from(seed: int, weights: str) -> int:
    """Return the seed of the sample order for a training that starts from weights with the sha256 `weights`.

    Trainings that start from different models thus begin with different windows. If `weights` is empty, the training
    starts from random weights: return `seed` itself.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {weights}".encode()).digest()[:8]) if weights else seed


def batch_of_step(step: int, skipped: Sequence[int]) -> int:
    """Return the number of the batch that step `step` (from 0) trains on, if the batches `skipped` are left out."""
    batch = step
    for number in sorted(skipped):
        batch += number <= batch
    return batch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's random numbers (dropout) by seed, step and rank, so that a resumed run draws the same numbers."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]))


def _permutation(length: int, *key: int) -> Ids:
    """Return a pseudo-random permutation that depends on `key` alone.

    numpy promises that the raw numbers of a bit generator never change, but not the result of `Generator.permutation`.
    A run that resumes under a later version must get the same order.
    """
    return np.argsort(np.random.Philox(np.random.SeedSequence(key)).random_raw(length), kind="stable")
