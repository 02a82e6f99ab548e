"""The sample order: the order in which windows are trained on, a function of the seed and the epoch alone.

In each epoch the shards are permuted and cut into blocks of consecutive shards. Within a block, all windows are
shuffled. So a worker needs the shards of one block at a time, and any range of the order can be computed without an
array as long as the corpus. Epochs follow each other without end. Batch b consists of the positions
``[b * B, (b + 1) * B)``, and each worker takes its share of them, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

Ids = npt.NDArray[np.int64]
BLOCK_SHARDS = 8


class SampleOrder:
    """A pseudo-random order with every window once in each epoch.

    The id of a window is its position in the dataset: shards in their order, and windows in their order in the shard.
    """

    def __init__(self, windows_per_shard: Sequence[int], seed: int, block_shards: int = BLOCK_SHARDS) -> None:
        self._counts = np.asarray(windows_per_shard, dtype=np.int64)
        self._first_ids = np.cumsum(self._counts) - self._counts
        self._seed = seed
        self._block_shards = block_shards
        self._epoch = _Epoch(-1, [], np.zeros(0, np.int64))
        self._block = _Block((-1, -1), np.zeros(0, np.int64))
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
        """Return the ids from `position` of the epoch to the end of its block."""
        if self._epoch.number != epoch:
            self._epoch = self._arrange(epoch)
        block = int(np.searchsorted(self._epoch.starts, position, side="right")) - 1
        if self._block.key != (epoch, block):
            self._block = _Block((epoch, block), self._shuffled(epoch, block))
        return self._block.ids[position - int(self._epoch.starts[block]) :]

    def _arrange(self, epoch: int) -> _Epoch:
        """Permute the shards that have windows, and cut them into blocks."""
        shards = np.flatnonzero(self._counts)
        shards = shards[_permutation(len(shards), self._seed, epoch, 0)]
        starts = np.cumsum(self._counts[shards]) - self._counts[shards]
        firsts = range(0, len(shards), self._block_shards)
        return _Epoch(epoch, [shards[first : first + self._block_shards] for first in firsts], starts[firsts])

    def _shuffled(self, epoch: int, block: int) -> Ids:
        shards = self._epoch.blocks[block]
        ids = np.concatenate([self._first_ids[shard] + np.arange(self._counts[shard]) for shard in shards])
        return ids[_permutation(len(ids), self._seed, epoch, 1 + block)]


class _Epoch:
    """The blocks of shards of an epoch, and the position at which each block starts."""

    def __init__(self, number: int, blocks: list[Ids], starts: Ids) -> None:
        self.number, self.blocks, self.starts = number, blocks, starts


class _Block:
    """The shuffled windows of one block; `key` is its epoch and its number."""

    def __init__(self, key: tuple[int, int], ids: Ids) -> None:
        self.key, self.ids = key, ids


def batch_of_step(step: int, skipped: Sequence[int]) -> int:
    """Return the number of the batch that step `step` (from 0) trains on when the `skipped` batches are left out."""
    batch = step
    for number in sorted(skipped):
        batch += number <= batch
    return batch


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's random numbers (dropout) by seed, step and rank, so that a resumed run draws the same ones."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]))


def _permutation(length: int, *key: int) -> Ids:
    """Return a pseudo-random permutation that depends on `key` alone.

    numpy promises that the raw numbers of a bit generator never change, but not the result of `Generator.permutation`.
    A run that resumes under a later version must find the same order.
    """
    return np.argsort(np.random.Philox(np.random.SeedSequence(key)).random_raw(length), kind="stable")
