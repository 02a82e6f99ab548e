"""File objects: one that reads ranges of an object in S3, and one that hashes a shard while it is written."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any, BinaryIO

from jobs.lake.manifest import FileEntry


class RangeReader(io.RawIOBase):
    """A file object of `size` bytes, each read of which is a call of `read_range` with a position and a size."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range = read_range
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._position))
        if size:
            buffer[:size] = self._read_range(self._position, size)
            self._position += size
        return size


class ShardWriter:
    """A binary file object that counts and hashes the bytes written to it."""

    closed = False

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._size += memoryview(data).nbytes
        return self._file.write(data)

    def flush(self) -> None:
        pass  # the file is flushed when it is closed

    def entry(self, **counts: int) -> FileEntry:
        """Return the manifest's entry for this file; valid once the file is complete."""
        return FileEntry(self.name, self._size, self._hash.hexdigest(), counts)
