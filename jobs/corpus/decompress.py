"""Decompresses gzip, bzip2, xz and zstd as streams. Accepts the files that the programs with these names accept.

A file is a sequence of members (compressed streams), some of which may be empty. In gzip, bzip2 and xz files, zeros may
follow the last member. If other bytes follow the last member, the programs ignore them with a warning. This module
ignores such bytes, too, and counts them. In zstd files, bytes after the last member are an error.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from functools import partial
from typing import Any

from backports import zstd

from jobs.errors import InputError

_CHUNK_BYTES = 1 << 18
_MAGIC_BYTES = 10  # the length of the longest magic number
_MAGIC = {
    "gz": re.compile(rb"\x1f\x8b\x08"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
_BEGINNINGS = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ", "zst": b"\x28\xb5\x2f"}
_PROGRAMS = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}
_MAX_WINDOW_LOG = 31  # the largest that the format allows on 64-bit machines


class _Gunzip:
    """Decompresses one gzip member, with the interface of the decompressors in `bz2` and `lzma`."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(16 + zlib.MAX_WBITS)  # checks the CRC and the length, too

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._object.decompress(self._object.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._object.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data


_DECODERS: dict[str, Any] = {
    "gz": _Gunzip,
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "zst": partial(zstd.ZstdDecompressor, options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}),
}


class Decompressed(io.RawIOBase):
    """The decompressed content of a stream. Reading raises InputError if the data is damaged or truncated."""

    ignored_bytes = 0
    """The number of ignored bytes after the last member. It is complete when the stream has been read to its end."""

    def __init__(self, stream: io.BufferedReader, compression: str, uri: str) -> None:
        super().__init__()
        self._stream, self._compression, self._uri = stream, compression, uri
        self._pending = stream.read(_CHUNK_BYTES)
        self._decoder: Any = _DECODERS[compression]() if self._pending else None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into `buffer`, and return their number. 0 means the end."""
        data = b""
        while self._decoder and not data:
            if self._decoder.eof:
                self._begin_member(self._decoder.unused_data)
            else:
                data = self._decode(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _decode(self, size: int) -> bytes:
        chunk = b""
        if self._decoder.needs_input:
            chunk, self._pending = self._pending or self._stream.read(_CHUNK_BYTES), b""
            if not chunk:
                raise self._truncated()
        try:
            return bytes(self._decoder.decompress(chunk, size))
        except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, ValueError) as error:
            if "dictionary" in str(error).lower():
                raise InputError(
                    f"{self._uri}: compressed with a dictionary, which is not available; decompress it with zstd -d -D"
                    " DICTIONARY, and compress it again without a dictionary"
                ) from None
            raise self._damaged(str(error)) from None

    def _begin_member(self, rest: bytes) -> None:
        """Begin the next member, or end the stream if there is none. `rest` was read after the previous member."""
        skipped = b"" if self._compression == "zst" else b"\0"
        rest = (rest + self._pending).lstrip(skipped)
        while len(rest) < _MAGIC_BYTES and (more := self._stream.read(_CHUNK_BYTES)):
            rest = (rest + more).lstrip(skipped)
        magic = _MAGIC[self._compression]
        self._decoder, self._pending = None, b""
        if magic.match(rest):
            self._decoder, self._pending = _DECODERS[self._compression](), rest
            return
        if rest and self._compression == "zst":
            raise InputError(f"{self._uri}: bytes that are not zstd follow a complete frame; remove them")
        while rest:
            if magic.search(rest):
                raise self._damaged("bytes that are not compressed data lie between its members")
            more = self._stream.read(_CHUNK_BYTES)
            self.ignored_bytes += len(rest) - (_MAGIC_BYTES if more and len(rest) > _MAGIC_BYTES else 0)
            rest = rest[-_MAGIC_BYTES:] + more if more and len(rest) > _MAGIC_BYTES else more

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self._uri}: damaged .{self._compression} file ({reason}); compress it again")

    def _truncated(self) -> InputError:
        return InputError(f"{self._uri}: truncated .{self._compression} file: its end is missing; copy it again")


def open_decompressed(stream: io.BufferedReader, compression: str, uri: str) -> io.BufferedReader:
    """Return a reader of the decompressed content of a stream. The reader's `raw` is a `Decompressed`.

    A stream of 0 bytes is accepted. Error messages begin with `uri`.

    Raises:
        InputError: if the content is not compressed in the format `compression`, or is truncated.
    """
    beginning = stream.read(64)
    stream.seek(0)
    if beginning and not _MAGIC[compression].match(beginning):
        known = _BEGINNINGS[compression]
        if len(beginning) < _MAGIC_BYTES and (known.startswith(beginning) or beginning.startswith(known)):
            raise InputError(f"{uri}: truncated .{compression} file: its end is missing; copy it again")
        program = _PROGRAMS[compression]
        raise InputError(
            f"{uri}: its content is not {program}, though its name ends in .{compression}; rename the file so that"
            f" its name matches its content, or compress it with {program}"
        )
    return io.BufferedReader(Decompressed(stream, compression, uri), _CHUNK_BYTES)
