"""Reads the bytes of a corpus file: any range of a plain file, or a stream that is decompressed during reading."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import SEEK_END, BufferedReader
from typing import BinaryIO

from jobs.corpus.decompress import open_decompressed
from jobs.errors import InputError
from jobs.lake import store
from jobs.sources.listing import Source, named_errors

BLOCK_BYTES = 1 << 23  # one request to S3 reads one block


@contextmanager
def open_plain(file: Source, buffer_bytes: int = store.BUFFER_BYTES) -> Iterator[BufferedReader]:
    """Open a file for reading its stored bytes at any position.

    Raises:
        InputError: if the file cannot be read, or its size differs from the listed size.
    """
    with named_errors(file.uri), store.open_input(file.uri, buffer_bytes) as stream:
        size = stream.seek(0, SEEK_END)
        if size != file.size:
            raise InputError(
                f"{file.uri}: changed while it was read: {file.size:,} bytes were listed, now it has {size:,}; start"
                " again when no program writes to it"
            )
        stream.seek(0)
        yield stream


@contextmanager
def open_stream(file: Source) -> Iterator[BufferedReader]:
    """Open a file for reading its decompressed content from start to end.

    Raises:
        InputError: if the file cannot be read, is damaged, or is not compressed as its name says.
    """
    with open_plain(file, BLOCK_BYTES) as stream:
        yield open_decompressed(stream, file.compression, file.uri) if file.compression else stream


@contextmanager
def open_seekable(file: Source) -> Iterator[BinaryIO]:
    """Open a file for reading its content at any position. A compressed file is decompressed to the local disk."""
    if file.compression is None:
        with open_plain(file) as stream:
            yield stream
        return
    with tempfile.TemporaryFile() as copy:
        for block in read_blocks(file):
            copy.write(block)
        yield copy


def read_blocks(file: Source) -> Iterator[bytes]:
    """Yield the decompressed content of a file in blocks."""
    with open_stream(file) as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block


def read_at(file: BinaryIO, start: int, size: int) -> bytes:
    """Read at most `size` bytes from `start` on."""
    file.seek(start)
    return file.read(size)
