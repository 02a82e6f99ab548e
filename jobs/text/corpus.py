"""A corpus is a text file or a folder of them: which files it has, in which order, and how they are cut into tasks."""

from __future__ import annotations

import hashlib
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from jobs import lake
from jobs.errors import InputError
from jobs.paths import base_name, is_s3, join, local_path, to_uri

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 23  # a request to S3 each


@dataclass(frozen=True)
class Source:
    """A file of a corpus. `name` is relative to the corpus, so a corpus may be moved."""

    name: str
    uri: str
    size: int


@dataclass(frozen=True)
class ByteRange:
    """The bytes [start, end) of a source."""

    source: Source
    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.start


@dataclass(frozen=True)
class CheckedSource:
    """What reading a source once from end to end tells."""

    sha256: str
    has_text: bool


def list_sources(corpus: str) -> list[Source]:
    """The files of a corpus in canonical order: by relative name, whatever the order of the listing.

    A single file is taken whatever its name. Of a folder, the ``.txt`` files at any depth are taken; those whose name,
    or whose folder's name, starts with ``.`` or ``_`` are skipped, as Hadoop and Spark do.

    Raises:
        InputError: if there is nothing at `corpus`, or no ``.txt`` file in it.
    """
    uri = to_uri(corpus)
    if lake.exists(uri):
        with _reading(uri), lake.open_input(uri) as file:
            return [Source(base_name(uri), uri, file.size())]
    found = lake.list_files(uri)
    if not found:
        raise InputError(f"{uri}: no file there, and no folder with files; give the corpus as a path or URI of text")
    named = [(_relative(uri, info.uri), info) for info in found]
    sources = [Source(name, info.uri, info.size) for name, info in named if _is_text(name)]
    if not sources:
        raise InputError(f"{uri}: none of its {len(found)} files is named *.txt; give a file or a folder of .txt files")
    return sorted(sources, key=lambda source: source.name)


def plan_splits(sources: Sequence[Source], split_bytes: int, whole_files: bool) -> list[list[ByteRange]]:
    """Cut sources into tasks of about `split_bytes`: a large file into ranges, small files together.

    The plan depends on the sources' sizes alone, never on who will do the work. An empty source has one empty range.
    """
    splits: list[list[ByteRange]] = []
    room = 0
    for source in sources:
        step = max(1, source.size if whole_files else split_bytes)
        for start in range(0, max(1, source.size), step):
            part = ByteRange(source, start, min(start + step, source.size))
            if not splits or part.size > room:
                splits.append([])
                room = split_bytes
            splits[-1].append(part)
            room -= part.size
    return splits


def check_sources(parts: Sequence[ByteRange]) -> list[CheckedSource]:
    """Read whole files once: hash them, and check that they are UTF-8.

    Raises:
        InputError: naming the file that cannot be read, or the offset of the first byte that is not UTF-8.
    """
    return [_check_source(part.source) for part in parts]


@contextmanager
def open_source(source: Source) -> Iterator[pa.NativeFile]:
    """Open a source for reading at any position.

    Raises:
        InputError: if it cannot be read.
    """
    with _reading(source.uri), lake.open_input(source.uri) as file:
        yield file


def _check_source(source: Source) -> CheckedSource:
    digest = hashlib.sha256()
    decoder = getincrementaldecoder("utf-8")()
    has_text = False
    position = 0
    with open_source(source) as file:
        while True:
            block = file.read(_BLOCK_BYTES)
            decoded = position - len(decoder.getstate()[0])  # it may hold the beginning of a letter
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                where = f"byte {decoded + error.start} (0x{error.object[error.start]:02x})"
                raise InputError(f"{source.uri}: not UTF-8 at {where}; convert the file to UTF-8") from None
            if not block:
                return CheckedSource(digest.hexdigest(), has_text)
            digest.update(block)
            has_text = has_text or bool(block.removeprefix(b"" if position else BYTE_ORDER_MARK).strip())
            position += len(block)


def read_at(file: pa.NativeFile, start: int, size: int) -> bytes:
    """At most `size` bytes from `start` on."""
    file.seek(start)
    return file.read(size)


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    """Turn what a file system says of a file that it will not give into a user's error."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{uri}: cannot be read ({reason})") from None


def _relative(folder_uri: str, uri: str) -> str:
    if is_s3(uri):
        return uri.removeprefix(join(folder_uri, ""))
    return local_path(uri).relative_to(local_path(folder_uri)).as_posix()


def _is_text(name: str) -> bool:
    return name.endswith(".txt") and not any(part.startswith((".", "_")) for part in name.split("/"))
