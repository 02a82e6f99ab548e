"""Splits text files into documents.

Documents are separated by borders. A border is a run of whitespace that contains line ends: at least one if documents
are lines, at least two if they are paragraphs. The blank line between paragraphs may hold spaces. A document begins
at the first byte after a border, and belongs to the byte range in which it begins. So the documents do not depend on
the size of the byte ranges, and each is found exactly once. A compressed file is read as a stream, and gives the same
documents.

Whitespace always means ASCII whitespace. A line ends with LF, CRLF or CR, and a file may mix these. In documents, all
line ends are LF. A document has no whitespace at its ends, and a byte order mark is not part of the text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.content import BLOCK_BYTES, open_plain, open_stream, read_at
from jobs.corpus.texts import IS_SPACE, Offsets, Texts
from jobs.sources.contents import BYTE_ORDER_MARK

Unit = Literal["paragraph", "line", "record", "file"]

# No pattern begins with \s*, which would take quadratic time: rstrip removes the whitespace before a border.
_NO_BORDER = re.compile(rb"(?!)")
_LINE_END = rb"(?:\n|\r\n|\r(?!\n))"
_BORDERS = {
    "line": re.compile(rb"[\r\n]\s*"),
    "paragraph": re.compile(_LINE_END + rb"[^\S\r\n]*" + _LINE_END + rb"\s*"),
    "record": _NO_BORDER,
    "file": _NO_BORDER,
}
_LINE_ENDS = {"line": 1, "paragraph": 2, "record": 1 << 62, "file": 1 << 62}
_BLOCK_BYTES = 1 << 16
_SPACES = re.compile(rb"\s*")


@dataclass(frozen=True)
class Documents:
    """A batch of documents of one file, and how often each kind of unusual content occurs in them.

    In a text file, the offset of a document is its position in the decompressed text, in bytes. In JSONL it is the
    offset of the record's line, and in Parquet the number of the row in the file, from 0.
    """

    texts: Texts
    offsets: Offsets
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, texts: Iterable[bytes], offsets: Iterable[int], counts: Counter[str]) -> Documents:
        """Return a batch of these texts, held in one buffer."""
        return cls(Texts.of(texts), np.fromiter(offsets, np.int64), counts)


def read_text(part: ByteRange, unit: Unit) -> Iterator[Documents]:
    """Read the documents that begin in a range of a text file. The last document may end after the range.

    A plain file gives one batch. A compressed file is read as a stream, in batches; its range must be the whole file.
    """
    if part.source.compression is None:
        yield _read_range(part, unit)
        return
    with open_stream(part.source) as stream:
        yield from _split_stream(stream, unit)


def _read_range(part: ByteRange, unit: Unit) -> Documents:
    with open_plain(part.source) as file:
        data, start = read_at(file, part.start, part.size), part.start
        if _begins_with_mark(file, part, data):
            data, start = data[len(BYTE_ORDER_MARK) - start :], len(BYTE_ORDER_MARK)
        is_end = part.end == part.source.size
        num_lines = _count_lines(data, unit) + (is_end and data[-1:] not in (b"", b"\n", b"\r"))
        if data.endswith(b"\r") and read_at(file, start + len(data), 1) == b"\n":
            num_lines -= unit == "line"  # the next range counts this CRLF, at its LF
        first = _first_document(file, data, start, unit)
        if first is None:
            return Documents.of([], [], _empty_lines(unit, num_lines, 0))
        data = data.rstrip() if is_end else _complete(file, data, start, unit)
    texts, offsets = split_documents(data[first:] if first else data, unit)
    return Documents(texts, offsets + (start + first), _empty_lines(unit, num_lines, len(texts)))


def _begins_with_mark(file: BinaryIO, part: ByteRange, data: bytes) -> bool:
    """Return whether the file begins with a byte order mark, and the mark or a part of it lies in `part`.

    `data` is the content of `part`.
    """
    if part.start >= len(BYTE_ORDER_MARK):
        return False
    is_whole = part.start == 0 and len(data) >= len(BYTE_ORDER_MARK)
    return (data if is_whole else read_at(file, 0, len(BYTE_ORDER_MARK))).startswith(BYTE_ORDER_MARK)


def _split_stream(stream: BinaryIO, unit: Unit) -> Iterator[Documents]:
    rest, offset, last = b"", 0, b""  # an unfinished document, its offset, and the last byte read
    while True:
        more = stream.read(max(BLOCK_BYTES, len(rest)))  # grows, so that long documents take linear time
        if not offset and not rest and more.startswith(BYTE_ORDER_MARK):
            more, offset = more[len(BYTE_ORDER_MARK) :], len(BYTE_ORDER_MARK)
        data = rest + more
        texts, begins = split_documents(data, unit)
        num_lines = _count_lines(more, unit) + (not more and last not in (b"", b"\n", b"\r"))
        num_lines -= unit == "line" and last + more[:1] == b"\r\n"  # this CRLF was counted with the previous block
        num_complete = len(texts) - bool(more and len(texts))  # the last document may continue in the next block
        offsets = begins[:num_complete] + offset
        yield Documents(texts[:num_complete], offsets, _empty_lines(unit, num_lines, num_complete))
        if not more:
            return
        start = int(begins[-1]) if len(begins) else len(data)
        rest, offset, last = data[start:], offset + start, more[-1:]


def _count_lines(data: bytes, unit: Unit) -> int:
    """Return the number of line ends if documents are lines, otherwise 0."""
    return count_line_ends(data) if unit == "line" else 0


def _empty_lines(unit: Unit, num_lines: int, num_documents: int) -> Counter[str]:
    """Return a counter with the number of empty lines. Return an empty counter if documents are not lines."""
    return Counter(empty_documents=num_lines - num_documents) if unit == "line" else Counter()


def split_documents(data: bytes, unit: Unit) -> tuple[Texts, Offsets]:
    """Return the documents in `data`, and the offset in `data` at which each begins.

    A paragraph is a run of lines that are not blank. A line is blank if it holds only whitespace.
    """
    data, line_ends = _with_plain_line_ends(data)
    if unit in ("record", "file"):
        begins, ends = np.zeros(1, np.int64), np.full(1, len(data))
        begins, ends = (begins, ends) if data.strip() else (begins[:0], ends[:0])
    else:
        begins, ends = _runs_of_lines(data, unit)
    _trim(data, begins, ends)
    return Texts(data, begins, ends), begins + np.searchsorted(line_ends, begins)


def count_line_ends(data: bytes) -> int:
    """Count the line ends: LF, CRLF and CR."""
    if b"\r" not in data:  # this test takes a thirtieth of the time of counting CR and CRLF
        return data.count(b"\n")
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def plain_line_ends(data: bytes) -> bytes:
    """Return `data` with each CRLF and each CR replaced by LF."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _with_plain_line_ends(data: bytes) -> tuple[bytes, Offsets]:
    """Return `data` with LF for each line end. Also return the offsets of the LFs that replace a CRLF.

    The offsets are positions in the returned text, not in `data`.
    """
    if b"\r" not in data:
        return data, np.zeros(0, np.int64)
    buffer = np.frombuffer(data, np.uint8)
    found = np.flatnonzero((buffer[:-1] == ord("\r")) & (buffer[1:] == ord("\n")))
    return plain_line_ends(data), found - np.arange(len(found))


def _runs_of_lines(data: bytes, unit: Unit) -> tuple[Offsets, Offsets]:
    """Return the offsets at which documents begin and end. Whitespace at the ends of a document is not removed yet."""
    line_ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    begins, ends = np.concatenate([[0], line_ends + 1]), np.concatenate([line_ends, [len(data)]])
    written = ~_blank(data, begins, ends)
    if unit == "line":
        return begins[written], ends[written]
    before, after = np.concatenate([[False], written[:-1]]), np.concatenate([written[1:], [False]])
    return begins[written & ~before], ends[written & ~after]


def _blank(data: bytes, begins: Offsets, ends: Offsets) -> npt.NDArray[np.bool_]:
    """Return a mask that is True for each line of only whitespace. Line i is ``data[begins[i]:ends[i]]``."""
    buffer = np.frombuffer(data, np.uint8)
    blank: npt.NDArray[np.bool_] = begins == ends
    candidates = np.flatnonzero(~blank)
    candidates = candidates[IS_SPACE[buffer[begins[candidates]]]]
    candidates = candidates[IS_SPACE[buffer[ends[candidates] - 1]]]
    for line in candidates:
        blank[line] = data[begins[line] : ends[line]].isspace()
    return blank


def _trim(data: bytes, begins: Offsets, ends: Offsets) -> None:
    """Trim the texts ``data[begins[i]:ends[i]]`` by changing the offsets in place. No text may be only whitespace."""
    buffer = np.frombuffer(data, np.uint8)
    for text in np.flatnonzero(IS_SPACE[buffer[begins]]):
        begins[text] = _SPACES.match(data, begins[text]).end()  # type: ignore[union-attr]  # always matches
    for text in np.flatnonzero(IS_SPACE[buffer[ends - 1]]):
        end, size = int(ends[text]), 64
        while not (line := data[max(0, end - size) : end].rstrip()):
            end, size = end - size, size * 2
        ends[text] = max(0, end - size) + len(line)


def _first_document(file: BinaryIO, data: bytes, start: int, unit: Unit) -> int | None:
    """Return the position in `data` at which the first document begins. Return None if none begins in `data`.

    `start` is the offset of `data` in the file.
    """
    lead = len(data) - len(data.lstrip())
    if lead == len(data):
        return None
    if start == 0 or _begins_document(file, start + lead, unit):
        return lead
    border = _BORDERS[unit].search(data, lead)
    return border.end() if border and border.end() < len(data) else None


def _begins_document(file: BinaryIO, position: int, unit: Unit) -> bool:
    """Return whether a document begins at `position` of the file: after a border, or at the beginning of the text.

    The byte at `position` must not be whitespace.
    """
    size = _BLOCK_BYTES
    while True:
        begin = position - size if position - size > len(BYTE_ORDER_MARK) else 0
        before = read_at(file, begin, position - begin)
        text = before.rstrip()
        if count_line_ends(before[len(text) :]) >= _LINE_ENDS[unit]:
            return True
        if text:
            return begin == 0 and text == BYTE_ORDER_MARK
        if begin == 0:
            return True
        size *= 2


def _complete(file: BinaryIO, data: bytes, start: int, unit: Unit) -> bytes:
    """Return `data`, extended to the end of the last document that begins in it. `start` is its offset in the file."""
    text_end = len(data.rstrip())
    size = _BLOCK_BYTES
    while not (border := _BORDERS[unit].search(data, text_end)):
        more = read_at(file, start + len(data), size)
        if not more:
            return data.rstrip()
        data += more
        size *= 2
    return data[: border.start()]
