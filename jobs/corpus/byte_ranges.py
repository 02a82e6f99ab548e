"""Divides the files of a corpus into groups of byte ranges. One task reads one group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.sources.listing import Source

_MAX_FILES = 1024  # in one group: opening a file takes time, however small it is


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes [start, end) of a source."""

    source: Source
    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.start

    @classmethod
    def whole(cls, source: Source) -> ByteRange:
        """Return the range of all bytes of `source`."""
        return cls(source, 0, source.size)


def divide_sources(sources: Sequence[Source], split_bytes: int, whole_files: bool) -> list[list[ByteRange]]:
    """Divide sources into groups of byte ranges. Each group has about `split_bytes` bytes.

    The groups do not depend on the number of workers. A large file is divided into several ranges, unless it is
    compressed or `whole_files` is true. An empty source gets one empty range.
    """
    groups: list[list[ByteRange]] = []
    room = 0
    for source in sources:
        step = max(1, source.size if whole_files or source.compression else split_bytes)
        for start in range(0, max(1, source.size), step):
            part = ByteRange(source, start, min(start + step, source.size))
            if not groups or part.size > room or len(groups[-1]) == _MAX_FILES:
                groups.append([])
                room = split_bytes
            groups[-1].append(part)
            room -= part.size
    return groups
