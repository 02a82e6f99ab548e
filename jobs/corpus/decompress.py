"""Decompresses gzip, bzip2, xz and zstd as streams, and takes what the programs of these names take.

A file may have several members, empty ones among them, and zeros after the last one. gzip, bzip2 and xz ignore other
bytes there with a warning; here they are counted. zstd refuses them.
"""

from __future__ import annotations

import bz2
import ctypes
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import pyarrow as pa

from jobs.errors import InputError

_CHUNK_BYTES = 1 << 18
_MAGIC_BYTES = 10  # the longest one
_MAGIC = {
    "gz": re.compile(rb"\x1f\x8b\x08"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
_BEGINNINGS = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ", "zst": b"\x28\xb5\x2f"}
_PROGRAMS = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}
_LIBRARIES = ("libzstd.so.1", "libzstd.1.dylib", "/opt/homebrew/lib/libzstd.1.dylib", "/usr/local/lib/libzstd.1.dylib")
_MAX_WINDOW_LOG = 31  # the largest one of the format on 64-bit machines
_PARAMETER_OF_WINDOW_LOG = 100  # ZSTD_d_windowLogMax


class Decompressed(io.RawIOBase):
    """The decompressed content of a stream. Reading raises InputError if the data is damaged or truncated."""

    ignored_bytes = 0
    """Bytes after the last member that belong to none; known at the end of the stream."""

    def __init__(self, stream: io.BufferedReader, compression: str, uri: str) -> None:
        super().__init__()
        self._stream, self._compression, self._uri = stream, compression, uri

    def readable(self) -> bool:
        """Return True."""
        return True

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self._uri}: damaged .{self._compression} file ({reason}); compress it again")

    def _truncated(self) -> InputError:
        return InputError(f"{self._uri}: truncated .{self._compression} file: its end is missing; copy it again")


def open_decompressed(stream: io.BufferedReader, compression: str, uri: str) -> io.BufferedReader:
    """Return the decompressed content of a stream that is named `uri`; its `raw` is a `Decompressed`.

    Raises:
        InputError: if the content is not compressed as its name says. Empty content is taken.
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
            f" its name says what it is, or compress it with {program}"
        )
    kind = _ZstdStream if compression == "zst" else _MemberStream
    return io.BufferedReader(kind(stream, compression, uri), _CHUNK_BYTES)


class _Gunzip:
    """A decompressor of one gzip member, with the interface of those in `bz2` and `lzma`."""

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


_DECODERS: dict[str, Any] = {"gz": _Gunzip, "bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}


class _MemberStream(Decompressed):
    """The content of a gzip, bzip2 or xz stream."""

    def __init__(self, stream: io.BufferedReader, compression: str, uri: str) -> None:
        super().__init__(stream, compression, uri)
        self._pending = stream.read(_CHUNK_BYTES)
        self._decoder: Any = _DECODERS[compression]() if self._pending else None

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes; 0 means the end."""
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
        except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
            raise self._damaged(str(error)) from None

    def _begin_member(self, rest: bytes) -> None:
        """Begin the next member, or end. `rest` is what follows a member."""
        rest = (rest + self._pending).lstrip(b"\0")
        while len(rest) < _MAGIC_BYTES and (more := self._stream.read(_CHUNK_BYTES)):
            rest = (rest + more).lstrip(b"\0")
        magic = _MAGIC[self._compression]
        self._decoder, self._pending = None, b""
        if magic.match(rest):
            self._decoder, self._pending = _DECODERS[self._compression](), rest
            return
        while rest:
            if magic.search(rest):
                raise self._damaged("other bytes stand between its members")
            more = self._stream.read(_CHUNK_BYTES)
            self.ignored_bytes += len(rest) - (_MAGIC_BYTES if more and len(rest) > _MAGIC_BYTES else 0)
            rest = rest[-_MAGIC_BYTES:] + more if more and len(rest) > _MAGIC_BYTES else more


class _ZstdStream(Decompressed):
    """The content of a zstd stream. Windows over 128 MB are refused by Arrow, and taken by the system's libzstd."""

    def __init__(self, stream: io.BufferedReader, compression: str, uri: str) -> None:
        super().__init__(stream, compression, uri)
        self._arrow = pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")
        self._long_window: Iterator[bytes] | None = None
        self._position, self._rest = 0, b""

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes; 0 means the end."""
        if self._long_window is None:
            try:
                data = self._arrow.read(len(buffer))
            except (OSError, pa.ArrowException) as error:
                self._refuse_damage(error)
                self._long_window = self._from_position()
        if self._long_window is not None:
            self._rest = self._rest or next(self._long_window, b"")
            data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _refuse_damage(self, error: Exception) -> None:
        """Raise InputError unless a long window is the reason why Arrow stopped."""
        reason = (str(error).splitlines() or [""])[0]
        if isinstance(error, OSError) and error.errno is not None:
            raise error
        if "too much memory" in reason:
            return
        if reason.startswith("Truncated"):
            raise self._truncated() from None
        if "Unknown frame" in reason:
            raise InputError(f"{self._uri}: bytes that are not zstd follow a complete frame; remove them") from None
        raise self._damaged(reason) from None

    def _from_position(self) -> Iterator[bytes]:
        """Yield the content behind what was read, with windows of any size."""
        zstd = _system_zstd()
        if zstd is None:
            raise InputError(
                f"{self._uri}: compressed with a window over 128 MB (zstd --long=28 or more), which needs the library"
                " libzstd; install it, or compress the file again with --long=27"
            )
        self._stream.seek(0)
        skipped = 0
        for data in self._decode_long(zstd):
            rest = data[max(0, self._position - skipped) :] if skipped < self._position else data
            skipped += len(data)
            if rest:
                yield rest

    def _decode_long(self, zstd: ctypes.CDLL) -> Iterator[bytes]:
        context = ctypes.c_void_p(zstd.ZSTD_createDCtx())
        zstd.ZSTD_DCtx_setParameter(context, _PARAMETER_OF_WINDOW_LOG, _MAX_WINDOW_LOG)
        space = ctypes.create_string_buffer(_CHUNK_BYTES)
        left = 0
        try:
            while chunk := self._stream.read(_CHUNK_BYTES):
                source, is_full = _Buffer(chunk), False
                while source.position < source.size or is_full:
                    target = _Buffer(space)
                    left = zstd.ZSTD_decompressStream(context, ctypes.byref(target), ctypes.byref(source))
                    if zstd.ZSTD_isError(ctypes.c_size_t(left)):
                        raise self._damaged(zstd.ZSTD_getErrorName(ctypes.c_size_t(left)).decode())
                    is_full = target.position == target.size
                    yield space.raw[: target.position]
        finally:
            zstd.ZSTD_freeDCtx(context)
        if left:
            raise self._truncated()


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer."""

    _fields_ = (("address", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))

    def __init__(self, data: Any) -> None:
        self.data = data  # keeps the memory
        super().__init__(ctypes.cast(data, ctypes.c_void_p), len(data), 0)


@lru_cache(maxsize=1)
def _system_zstd() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        with suppress(OSError):
            library = ctypes.CDLL(name)
            library.ZSTD_createDCtx.restype = ctypes.c_void_p
            library.ZSTD_decompressStream.restype = ctypes.c_size_t
            library.ZSTD_getErrorName.restype = ctypes.c_char_p
            return library
    return None
