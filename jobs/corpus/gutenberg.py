"""Removes the headers, footers and licences that Project Gutenberg puts around the text of a book.

These parts begin and end with marks: lines such as ``*** START OF THE PROJECT GUTENBERG EBOOK ...``. Their wording has
changed since 1991. A file or record may hold several books one after another, each with its own marks.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, cast

from jobs.sources.listing import Mark

Kind = Literal["header", "small_print", "start", "small_print_end", "end", "licence_end", "last_line"]

_PROJECT = r"(?:the |this )?(?:copyrighted )?Proje(?:ct|kt) Gutenberg"
_TEXT = r"e-?(?:text|book)"
_WRAPPED = r"(?:[^\n]*\*{3} *$|[^\n]*\n[^\n]*\*{3} *$|[^\n]*)"  # a long title takes two lines
_MADE = "(?:prepared|produced|typed|scanned)"
_CREDIT = rf"(?:this {_TEXT} was {_MADE}|{_TEXT} {_MADE}|produced|prepared) by\b"
_CREDITS = rf"(?:\s*\n[ \t]*{_CREDIT}[^\n]*(?:\n[ \t]*[^\s][^\n]{{0,200}}){{0,6}})*"
_SMALL_PRINT = r"(?:OF )?(?:THE )?SMALL PRINT[^\n]*"
_PATTERNS: dict[Kind, str] = {
    # Each of the next two marks begins the header of a book, if the mark of the book's start follows.
    "header": r"\**[ \t]*(?:this is )?(?:the |a )?(?:copyrighted )?"
    rf"Project Gutenberg(?:'s [^\n]|(?:'s)? {_TEXT}\b)[^\n]*",
    "small_print": rf"\*+ ?START[*: ]+{_SMALL_PRINT}",
    "start": rf"\*+ ?START OF {_PROJECT}{_WRAPPED}{_CREDITS}",
    "small_print_end": rf"\*+ ?END[* ]+{_SMALL_PRINT}{_CREDITS}",
    "end": rf"\*+ ?END OF {_PROJECT}{_WRAPPED}"
    rf"|(?:this is )?(?:the )?end of {_PROJECT}[^\n]*"
    rf"|(?:the )?end of (?:the|this) {_TEXT}\b[^\n]*"
    rf"|Ende (?:dieses|des|diese) (?:{_PROJECT}|{_TEXT}(?:es|s)?\b)[^\n]*"
    r"|Ce document fut pr(?:é|e)sent(?:é|e) en lecture[^\n]*"
    r"|(?:\*+ ?)?START: FULL LICENSE[^\n]*|THE FULL PROJECT GUTENBERG(?:-tm|™)? LICENSE[^\n]*",
    "licence_end": r"(?:\*+ ?)?END: FULL LICENSE[^\n]*",
    "last_line": r"(?:how to )?subscribe to our email newsletter[^\n]*",
}
_HEADERS, _STARTS = ("header", "small_print"), ("start", "small_print_end")
_BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_ANY = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items())
_MARK = re.compile(rf"^(?:{_BYTE_ORDER_MARK})?[ \t]*(?:{_ANY})".encode(), re.MULTILINE | re.IGNORECASE)
_MARK_BYTES = 1 << 12  # longer than any mark, including the credits that follow it
_HEADER_BYTES = 1 << 15  # longer than any header


Found = tuple[int, int, Kind]


class MarkFinder:
    """Finds the marks in a file that is read in blocks."""

    def __init__(self) -> None:
        self._found: list[Found] = []
        self._data, self._offset = b"", 0

    def add(self, block: bytes) -> None:
        """Search the next block."""
        self._data += block
        self._search(len(self._data) - _MARK_BYTES)

    def marks(self) -> tuple[Mark, ...]:
        """Return the marks of the whole file."""
        self._search(len(self._data) + 1)
        return judge(self._found)

    def _search(self, limit: int) -> None:
        """Record the marks that begin before the offset `limit` in the data. Keep the rest of the data for later."""
        taken = 0
        for begin, end, kind in _find(self._data, min(1, self._offset)):
            if begin >= limit:
                break
            self._found.append((self._offset + begin, self._offset + end, kind))
            taken = end
        kept = max(0, taken - 1, limit - 1)  # with the previous byte, which shows whether a line begins here
        self._data, self._offset = self._data[kept:], self._offset + kept


def judge(found: Sequence[Found]) -> tuple[Mark, ...]:
    """Decide for each mark whether to keep the text before the mark, the mark's own line, and the text after it.

    The text of a book lies between its start mark and its end mark. Text before the first start mark is a header. Text
    after an end mark is a licence, up to the licence's last line or the next start mark. Any other text is kept.
    """
    marks: list[Mark] = []
    kept, has_started, has_ended = True, False, False
    for i, (begin, end, kind) in enumerate(found):
        if kept and (kind == "last_line" or (kind in _HEADERS and not _starts_header(found, i))):
            marks.append(Mark(begin, end, True, True, True))  # a line of the text that only looks like a mark
            continue
        is_start = kind == "start" or (kind == "small_print_end" and not has_ended)  # otherwise it ends a footer
        if is_start and kept and not has_started:  # no mark begins this header
            _drop_after_last(marks)
            kept = False
        keeps_after = kind not in (*_HEADERS, "end")
        marks.append(Mark(begin, end, kept, False, keeps_after))
        kept, has_started = keeps_after, is_start or (has_started and kind != "end")
        has_ended = kind == "end" or (has_ended and kind == "small_print")
    return tuple(marks)


def _starts_header(found: Sequence[Found], i: int) -> bool:
    """Return whether the mark `found[i]` begins a header.

    It does if the next mark that is not part of a header is the start of a book, and lies at most 32 KiB after
    `found[i]`.
    """
    following = next((mark for mark in found[i + 1 :] if mark[2] not in _HEADERS), None)
    return following is not None and following[2] in _STARTS and following[0] - found[i][0] <= _HEADER_BYTES


def _drop_after_last(marks: list[Mark]) -> None:
    """Change `marks` in place so that all text after the last real mark is dropped.

    Lines of a book may look like marks without being marks. Those after the last real mark are dropped, too.
    """
    last = max((i for i, mark in enumerate(marks) if not mark.keeps_line), default=-1)
    if last >= 0:
        marks[last] = marks[last]._replace(keeps_after=False)
    for i in range(last + 1, len(marks)):
        marks[i] = Mark(marks[i].begin, marks[i].end, False, False, False)


def has_real_marks(marks: Sequence[Mark]) -> bool:
    """Return whether any of `marks` is a real mark, rather than a line of a book that only looks like a mark."""
    return any(not mark.keeps_line for mark in marks)


def keep_bodies(text: bytes, offset: int, marks: Sequence[Mark]) -> bytes:
    """Return a document without headers and licences. It begins at `offset` in a file that has the marks `marks`."""
    next_mark = bisect_left(marks, offset, key=lambda mark: mark.begin)
    if next_mark and marks[next_mark - 1].end > offset:
        return b""
    if next_mark == len(marks):
        return text if not marks or marks[-1].keeps_after else b""
    # A line end is one byte in a document, and may be two in the file.
    if marks[next_mark].begin <= offset + 2 * len(text):
        return _cut(text, _find(text), marks[next_mark:])
    return text if marks[next_mark].keeps_before else b""


def between_marks(text: bytes) -> tuple[bytes, bool]:
    """Return a text without headers and licences, and whether it has marks. Without marks, the text is unchanged."""
    found = list(_find(text))
    marks = judge(found)
    return _cut(text, found, marks).strip(), has_real_marks(marks)


def _cut(text: bytes, found: Iterable[Found], marks: Sequence[Mark]) -> bytes:
    """Return a text without headers and licences. `marks` holds the decisions for the marks in `found`, in order."""
    parts, position, keeps_rest = [], 0, marks[0].keeps_before if marks else True
    for (begin, end, _), mark in zip(found, marks, strict=False):
        keeps_rest = mark.keeps_after
        if mark.keeps_line:
            continue
        if mark.keeps_before:
            parts.append(text[position:begin])
        position = end
    if keeps_rest:
        parts.append(text[position:])
    if len(parts) == 1 and parts[0] == text:
        return text
    return b"\n\n".join(part for each in parts if (part := each.strip()))


def _find(data: bytes, start: int = 0) -> Iterator[Found]:
    """Yield the begin, the end and the kind of each mark in `data`. The search begins at the offset `start`."""
    if b"\r" in data:  # every line end becomes LF; offsets stay the same
        data = data.replace(b"\r\n", b" \n").replace(b"\r", b"\n")
    for match in _MARK.finditer(data, start):
        kind = cast("Kind", match.lastgroup)
        yield match.start(kind), match.end(kind), kind
