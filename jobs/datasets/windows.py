"""Counts and reads the windows of a stream of tokens. Windows are stored as offsets, not as copies of tokens.

A window has `size` input tokens and the one token that follows. Window i of a stream covers the tokens
``[i * stride, i * stride + size]``, both included. The last window may be shifted back to the end of the stream.

The stream of a side (train or valid) is stored in shards. Each has a whole number of windows and all tokens that they
need, so no window spans shards. A shard is an uncompressed Arrow IPC file of one record batch with one row:

- ``tokens`` (large_list of uint8, uint16 or uint32);
- ``starts`` (large_list of uint32): the position of each window's first token. The list is empty if every window j of
  the shard starts at ``j * stride``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.errors import InputError
from jobs.lake.cache import verified_file
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.store import read_manifest
from jobs.tokenizer.tokenizer import TokenIds

Side = Literal["train", "valid"]
Last = Literal["drop", "shift"]
SIDES: tuple[Side, Side] = ("train", "valid")
_OPEN_SHARDS = 8


def num_windows(num_tokens: int, size: int, stride: int, last: Last = "drop") -> int:
    """Return the number of windows in a stream of `num_tokens` tokens. Each window needs `size + 1` tokens.

    If tokens are left at the end, `last` decides: ``drop`` leaves them out, and ``shift`` adds a window that ends with
    the stream.
    """
    room = num_tokens - size - 1
    if room < 0:
        return 0
    return room // stride + 1 + (last == "shift" and room % stride > 0)


def num_tokens_of(windows: int, size: int, stride: int) -> int:
    """Return the number of tokens that `windows` consecutive windows (at least one) cover."""
    return (windows - 1) * stride + size + 1


def find_windows(lake: Lake, fingerprint: str) -> tuple[str, Manifest]:
    """Return the folder and the manifest of a windows dataset; raise InputError if there is none."""
    folder_uri = lake.dataset("windows", fingerprint)
    manifest = read_manifest(folder_uri)
    if manifest is None:
        raise InputError(f"{folder_uri}: no windows here; run the windows step first")
    return folder_uri, manifest


@dataclass(frozen=True)
class WindowShard:
    """A memory-mapped shard: its tokens, and the position of each window's first token.

    `starts` is empty if every window j starts at ``j * stride``.
    """

    tokens: TokenIds
    starts: npt.NDArray[np.uint32]
    stride: int

    def read(self, windows: npt.NDArray[np.integer], size: int) -> npt.NDArray[np.int64]:
        """Return windows as rows, (len(windows), size + 1): a row has `size` inputs and the token that follows.

        `windows` holds the numbers of the windows in the shard.
        """
        first = self.starts[windows].astype(np.int64) if len(self.starts) else np.asarray(windows) * self.stride
        rows: npt.NDArray[np.int64] = self.tokens[first[:, None] + np.arange(size + 1)].astype(np.int64)
        return rows


class WindowSet:
    """The windows of one side of a dataset. The id of a window is its number, counted from 0 over all shards.

    Shards are memory-mapped when they are first read; the last few are kept open.
    """

    def __init__(self, folder_uri: str, manifest: Manifest, side: Side) -> None:
        entries = manifest.entries(f"{side}/")
        self.size: int = manifest.counts["size"]
        """The number of inputs in a window."""
        self.windows_per_shard = [entry.counts["windows"] for entry in entries]
        """The number of windows in each shard."""
        self.num_windows: int = sum(self.windows_per_shard)
        """The number of windows in all shards."""
        self._first_ids = np.cumsum(self.windows_per_shard) - self.windows_per_shard
        self._folder_uri = folder_uri
        self._entries = entries
        self._stride: int = manifest.counts["stride"]
        self._open_shard = lru_cache(maxsize=_OPEN_SHARDS)(self._map_shard)

    @classmethod
    def open(cls, lake: Lake, fingerprint: str, side: Side) -> WindowSet:
        """Open one side of the windows dataset with this fingerprint; raise InputError if there is none."""
        return cls(*find_windows(lake, fingerprint), side)

    def read(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return the windows with these ids as rows, (len(ids), size + 1): the inputs and the token that follows."""
        rows = np.empty((len(ids), self.size + 1), np.int64)
        shards = np.searchsorted(self._first_ids, ids, side="right") - 1
        for shard in np.unique(shards).tolist():
            here = shards == shard
            rows[here] = self._open_shard(shard).read(ids[here] - self._first_ids[shard], self.size)
        return rows

    def _map_shard(self, shard: int) -> WindowShard:
        path = os.fsencode(verified_file(self._folder_uri, self._entries[shard]))
        with pa.memory_map(path) as source:  # type: ignore[arg-type]  # bytes work, too, for names that are not UTF-8
            batch = pa.ipc.open_file(source).get_batch(0)
        tokens, starts = (_list_values(batch.column(name)) for name in ("tokens", "starts"))
        return WindowShard(tokens, starts, self._stride)


def _list_values(column: pa.Array[Any]) -> npt.NDArray[Any]:
    """Return the values of a column that holds one list, without a copy."""
    assert isinstance(column, pa.LargeListArray)
    return column.values.to_numpy()
