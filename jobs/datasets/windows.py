"""Windows are addresses in a stream of tokens: how many there are, and how to read them.

A window is `size` inputs and one target more. Window i of a stream covers tokens ``[i * stride, i * stride + size]``;
the last may be shifted back to where the stream ends.
The stream of a side (train or valid) is stored in shards, each with a whole number of windows and all tokens that they
need, so a window never spans shards. A shard is an Arrow IPC file, uncompressed, one record batch of one row:

- ``tokens`` (large_list of uint8, uint16 or uint32);
- ``starts`` (large_list of uint32): the first token of each window; empty where window j starts at ``j * stride``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.lake.store import FileEntry, read_manifest, verified_file
from jobs.tokenizer.tokenizer import Ids

Side = Literal["train", "valid"]
Last = Literal["drop", "shift"]
SIDES: tuple[Side, Side] = ("train", "valid")
_OPEN_SHARDS = 8


def num_windows(num_tokens: int, size: int, stride: int, last: Last = "drop") -> int:
    """The number of windows in a stream of `num_tokens` tokens: a window needs `size` inputs and one target more.

    What is left at the end is dropped; with ``shift`` one window more ends there.
    """
    room = num_tokens - size - 1
    if room < 0:
        return 0
    return room // stride + 1 + (last == "shift" and room % stride > 0)


def num_tokens_of(windows: int, size: int, stride: int) -> int:
    """The number of tokens that `windows` neighbouring windows (at least one) cover."""
    return (windows - 1) * stride + size + 1


@dataclass(frozen=True)
class WindowShard:
    """A shard that is memory-mapped: its tokens, and the first token of each window where that is not j * stride."""

    tokens: Ids
    starts: npt.NDArray[np.uint32]
    stride: int

    def read(self, windows: npt.NDArray[np.integer], size: int) -> npt.NDArray[np.int64]:
        """The windows as rows of `size` inputs and a target, shape (len(windows), size + 1)."""
        first = self.starts[windows].astype(np.int64) if len(self.starts) else np.asarray(windows) * self.stride
        rows: npt.NDArray[np.int64] = self.tokens[first[:, None] + np.arange(size + 1)].astype(np.int64)
        return rows


class WindowSet:
    """The windows of one side of a dataset. Shards are memory-mapped when first read; a few are kept open."""

    def __init__(self, folder_uri: str, entries: list[FileEntry], size: int, stride: int) -> None:
        self.size = size
        """Inputs in a window."""
        self.windows_per_shard = [entry.counts["windows"] for entry in entries]
        """The number of windows in each shard."""
        self.num_windows = sum(self.windows_per_shard)
        """The number of windows in all shards."""
        self._folder_uri = folder_uri
        self._entries = entries
        self._stride = stride
        self._open: OrderedDict[int, WindowShard] = OrderedDict()

    @classmethod
    def open(cls, lake: Lake, fingerprint: str, side: Side) -> WindowSet:
        """Open the windows dataset `fingerprint` of `lake`.

        Raises:
            InputError: if there is no such dataset.
        """
        folder_uri = lake.windows(fingerprint)
        manifest = read_manifest(folder_uri)
        if manifest is None:
            raise InputError(f"{folder_uri}: no windows here; run the windows step first")
        return cls(folder_uri, manifest.entries(f"{side}/"), manifest.counts["size"], manifest.counts["stride"])

    def read(self, shard: int, windows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Windows of one shard, by their index in it, as rows of `size` inputs and a target.

        Returns:
            Token ids of shape (len(windows), size + 1).

        Raises:
            DamagedError: if the shard is missing, truncated or altered.
        """
        return self._shard(shard).read(windows, self.size)

    def _shard(self, shard: int) -> WindowShard:
        if shard not in self._open:
            entry = self._entries[shard]
            self._open[shard] = self._load(entry)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]

    def _load(self, entry: FileEntry) -> WindowShard:
        path = verified_file(self._folder_uri, entry)
        with pa.memory_map(str(path)) as source:
            batch = pa.ipc.open_file(source).get_batch(0)
        tokens, starts = (_numpy(batch.column(name)) for name in ("tokens", "starts"))
        return WindowShard(tokens, starts, self._stride)


def _numpy(column: pa.Array[Any]) -> npt.NDArray[Any]:
    """The one list of a column, as a view."""
    assert isinstance(column, pa.LargeListArray)
    return column.values.to_numpy()
