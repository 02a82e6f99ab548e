"""Documents are what lies between borders, and a border is a run of whitespace with enough line ends in it.

Two line ends (so a blank line, which may hold spaces) divide paragraphs, one divides lines. A document begins with the
first byte after a border that is not whitespace, and belongs to the byte range in which it begins; so ranges of any
size give the same documents, each exactly once, and so does reading a compressed file as a stream. Whitespace means
ASCII whitespace throughout. Documents hold no whitespace at their ends; their CRLF line ends become LF; a byte order
mark is no part of the text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import pyarrow as pa

from jobs.text.content import BLOCK_BYTES, BYTE_ORDER_MARK, open_plain, open_stream, read_at
from jobs.text.corpus import ByteRange

Unit = Literal["paragraph", "line", "record", "file"]

# Whitespace before a border's first line end is left to rstrip: a pattern that began with \s* would be quadratic.
_NO_BORDER = re.compile(rb"(?!)")
_BORDERS = {
    "line": re.compile(rb"(\n\s*)"),
    "paragraph": re.compile(rb"(\n[^\S\n]*\n\s*)"),
    "record": _NO_BORDER,
    "file": _NO_BORDER,
}
_LINE_ENDS = {"line": 1, "paragraph": 2, "record": 1 << 62, "file": 1 << 62}
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class Documents:
    """Some documents of a file: their text, the place at which each begins, and counts of what was met on the way.

    The place is an offset in bytes (of the decompressed text; in JSONL that of the record's line), in Parquet a row.
    """

    texts: list[bytes]
    offsets: list[int]
    counts: Counter[str] = field(default_factory=Counter)


def read_text(part: ByteRange, unit: Unit) -> Iterator[Documents]:
    """Read the documents that begin in a part of a text file, and no others, wherever they end.

    A plain file gives one batch. A compressed one, whose part must be the whole, is read as a stream, in batches.

    Raises:
        InputError: if the file cannot be read.
    """
    if part.source.compression is None:
        yield _read_range(part, unit)
        return
    with open_stream(part.source) as stream:
        for texts, offsets, num_lines in _split_stream(stream, unit):
            yield Documents(texts, offsets, _empty_lines(unit, num_lines, len(texts)))


def _read_range(part: ByteRange, unit: Unit) -> Documents:
    with open_plain(part.source) as file:
        start = part.start
        if start < len(BYTE_ORDER_MARK) and read_at(file, 0, len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            start = len(BYTE_ORDER_MARK)
        data = read_at(file, start, max(0, part.end - start))
        num_lines = data.count(b"\n") + (part.end == part.source.size and data[-1:] not in (b"", b"\n"))
        first = _first_document(file, data, start, unit)
        if first is None:
            return Documents([], [], _empty_lines(unit, num_lines, 0))
        data = _complete(file, data, start, unit)
    texts, offsets = split_documents(data[first:], start + first, unit)
    return Documents(texts, offsets, _empty_lines(unit, num_lines, len(texts)))


def _split_stream(stream: pa.NativeFile, unit: Unit) -> Iterator[tuple[list[bytes], list[int], int]]:
    """Texts and offsets of the documents of a stream, and the number of lines, batch by batch."""
    rest, offset, last = b"", 0, b""  # what is not known to be complete, and where it stands
    while True:
        more = stream.read(max(BLOCK_BYTES, len(rest)))  # ever larger, so that long documents take linear time
        if not offset and not rest and more.startswith(BYTE_ORDER_MARK):
            more, offset = more[len(BYTE_ORDER_MARK) :], len(BYTE_ORDER_MARK)
        data = rest + more
        lead = len(data) - len(data.lstrip())
        num_lines = more.count(b"\n")
        if not more:
            num_lines += last not in (b"", b"\n")
            texts, offsets = split_documents(data[lead:].rstrip(), offset + lead, unit) if data[lead:] else ([], [])
            yield texts, offsets, num_lines
            return
        texts, offsets = split_documents(data[lead:], offset + lead, unit)
        rest, last = data[offsets[-1] - offset :], more[-1:]
        yield texts[:-1], offsets[:-1], num_lines
        offset = offsets[-1]


def _empty_lines(unit: Unit, num_lines: int, num_documents: int) -> Counter[str]:
    """Where lines are documents, what is more than these were empty lines."""
    return Counter(empty_documents=num_lines - num_documents) if unit == "line" else Counter()


def split_documents(data: bytes, offset: int, unit: Unit) -> tuple[list[bytes], list[int]]:
    """Cut `data`, which begins and ends with a document, at its borders; `offset` is where it stands in the file."""
    parts = _BORDERS[unit].split(data)  # text, border, text, ..., text
    offsets = list(accumulate(map(len, parts), initial=offset))[:-1:2]
    texts = [text.rstrip() for text in parts[::2]]
    if b"\r" in data:
        texts = [text.replace(b"\r\n", b"\n") for text in texts]
    return texts, offsets


def _first_document(file: pa.NativeFile, data: bytes, start: int, unit: Unit) -> int | None:
    """The position in `data`, which stands at `start` in the file, of the first document that begins in it."""
    lead = len(data) - len(data.lstrip())
    if lead == len(data):
        return None
    if _begins_document(file, start + lead, unit):
        return lead
    border = _BORDERS[unit].search(data, lead)
    return border.end() if border and border.end() < len(data) else None


def _begins_document(file: pa.NativeFile, position: int, unit: Unit) -> bool:
    """Whether the byte at `position`, which is not whitespace, comes after a border or is the first of the text."""
    size = _BLOCK_BYTES
    while True:
        begin = position - size if position - size > len(BYTE_ORDER_MARK) else 0
        before = read_at(file, begin, position - begin)
        text = before.rstrip()
        if before.count(b"\n", len(text)) >= _LINE_ENDS[unit]:
            return True
        if text:
            return begin == 0 and text == BYTE_ORDER_MARK
        if begin == 0:
            return True
        size *= 2


def _complete(file: pa.NativeFile, data: bytes, start: int, unit: Unit) -> bytes:
    """`data` up to the end of the last document that begins in it, which may lie far behind `data`."""
    text_end = len(data.rstrip())
    size = _BLOCK_BYTES
    while not (border := _BORDERS[unit].search(data, text_end)):
        more = read_at(file, start + len(data), size)
        if not more:
            return data.rstrip()
        data += more
        size *= 2
    return data[: border.start()]
