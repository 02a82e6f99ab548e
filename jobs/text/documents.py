"""Documents are what lies between borders, and a border is a run of whitespace with enough line ends in it.

Two line ends (so a blank line, which may hold spaces) divide paragraphs, one divides lines. A document begins with the
first byte after a border that is not whitespace, and belongs to the byte range in which it begins; so ranges of any
size give the same documents, each exactly once. Whitespace means ASCII whitespace throughout. Documents hold no
whitespace at their ends; their CRLF line ends become LF; a byte order mark is no part of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import pyarrow as pa

from jobs.text.corpus import BYTE_ORDER_MARK, ByteRange, open_source, read_at

Unit = Literal["paragraph", "line", "file"]

# Whitespace before a border's first line end is left to rstrip: a pattern that began with \s* would be quadratic.
_BORDERS = {
    "line": re.compile(rb"(\n\s*)"),
    "paragraph": re.compile(rb"(\n[^\S\n]*\n\s*)"),
    "file": re.compile(rb"(?!)"),  # there is none in a file
}
_LINE_ENDS = {"line": 1, "paragraph": 2, "file": 1 << 62}
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class Documents:
    """The documents that begin in a byte range: their text, and the offset in the file at which each begins.

    `num_lines` counts the line ends of the range (and the file's last line, if it has none): with lines as documents,
    what is more than the documents were empty lines.
    """

    texts: list[bytes]
    offsets: list[int]
    num_lines: int


def read_documents(part: ByteRange, unit: Unit) -> Documents:
    """Read the documents that begin in `part`, and no others, wherever they end.

    Raises:
        InputError: if the file cannot be read.
    """
    with open_source(part.source) as file:
        start = part.start
        if start < len(BYTE_ORDER_MARK) and read_at(file, 0, len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            start = len(BYTE_ORDER_MARK)
        data = read_at(file, start, max(0, part.end - start))
        num_lines = data.count(b"\n") + (part.end == part.source.size and data[-1:] not in (b"", b"\n"))
        first = _first_document(file, data, start, unit)
        if first is None:
            return Documents([], [], num_lines)
        data = _complete(file, data, start, unit)
    return Documents(*split_documents(data[first:], start + first, unit), num_lines)


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
