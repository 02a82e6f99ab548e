"""Reads the bytes of a corpus file: any range of a plain file, or a stream that is decompressed while it is read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import BinaryIO, Literal

import pyarrow as pa

from jobs.errors import InputError
from jobs.lake import store
from jobs.sources.listing import Source, named_errors

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLOCK_BYTES = 1 << 23  # one request to S3 reads one block

_CODECS: dict[str, Literal["gzip", "bz2", "zstd"]] = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}


@contextmanager
def open_plain(file: Source, buffer_bytes: int = store.BUFFER_BYTES) -> Iterator[BufferedReader]:
    """Open a file for reading its stored bytes at any position; raise InputError if it cannot be read."""
    with named_errors(file.uri), store.open_input(file.uri, buffer_bytes) as stream:
        yield stream


@contextmanager
def open_stream(file: Source) -> Iterator[BinaryIO | pa.NativeFile]:
    """Open a file for reading its decompressed content from start to end.

    Raises:
        InputError: if it cannot be read, or is damaged or not compressed as its name says.
    """
    with open_plain(file, BLOCK_BYTES) as stream:
        if file.compression is None:
            yield stream
            return
        try:
            yield pa.CompressedInputStream(pa.PythonFile(stream, "r"), _CODECS[file.compression])
        except OSError as error:
            if error.errno is not None:
                raise
            reason = str(error).splitlines()[0]
            raise InputError(f"{file.uri}: damaged .{file.compression} file ({reason}); compress it again") from None


@contextmanager
def open_seekable(file: Source) -> Iterator[BinaryIO]:
    """Open a file for reading its content at any position; a compressed file is decompressed to the local disk."""
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
