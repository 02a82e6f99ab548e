"""Filters of single documents; each counts what it changes or drops. Duplicates are dropped in `jobs.corpus.dedup`.

Documents have no whitespace at their ends and are never empty, so no filter trims them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator

from jobs.config import TokenizeConfig
from jobs.corpus.documents import Documents

_NOWHERE = 1 << 62
_START = re.compile(rb"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[^\n]*\n", re.MULTILINE | re.IGNORECASE)
_END = re.compile(
    rb"^(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK|End of (?:the )?Project Gutenberg)",
    re.MULTILINE | re.IGNORECASE,
)
_MARK_BYTES = 1024  # longer than a line with a mark


class BodyFinder:
    """Finds the marks of Project Gutenberg in a file that is read in blocks."""

    def __init__(self) -> None:
        self._begin, self._end = 0, _NOWHERE
        self._position = 0
        self._before = b"\n"

    def add(self, block: bytes) -> None:
        """Search the next block."""
        data = self._before + block
        offset = self._position - len(self._before)
        if not self._begin and (mark := _START.search(data)):
            self._begin = offset + mark.end()
        if self._end == _NOWHERE and (mark := _END.search(data, max(0, self._begin - offset))):
            self._end = offset + mark.start()
        self._position += len(block)
        self._before = data[-_MARK_BYTES:]

    @property
    def body(self) -> tuple[int, int]:
        """The offsets at which the text between the marks begins and ends."""
        return self._begin, self._end


def has_filters(settings: TokenizeConfig) -> bool:
    """Return whether any filter is on."""
    return settings.drop_gutenberg or settings.normalize_nfc or _has_limits(settings)


def between_marks(text: bytes) -> bytes:
    """Return the part of a text between the marks of Project Gutenberg; without marks, all of it."""
    start, end = _START.search(text), _END.search(text)
    return text[start.end() if start else 0 : end.start() if end else None].strip()


def filter_documents(batch: Documents, settings: TokenizeConfig, body: tuple[int, int] | None) -> Documents:
    """Return the documents that pass the filters, changed where a filter changes them.

    Args:
        batch: Documents of one file.
        settings: The filters that are on.
        body: The offsets of the text between the marks of Project Gutenberg in a text file, if these are looked for.
    """
    counts = Counter(batch.counts)
    pairs: Iterator[tuple[bytes, int]] = zip(batch.texts, batch.offsets.tolist(), strict=True)
    for is_on, filter_one in (
        (settings.drop_gutenberg, lambda text, offset: _drop_outside_body(text, offset, body, counts)),
        (settings.normalize_nfc, lambda text, _: _normalize(text, counts)),
        (_has_limits(settings), lambda text, _: _drop_by_length(text, settings, counts)),
    ):
        if is_on:
            pairs = _apply(pairs, filter_one)
    kept = list(pairs)
    return Documents.of([text for text, _ in kept], [offset for _, offset in kept], counts)


def _apply(
    pairs: Iterator[tuple[bytes, int]], filter_one: Callable[[bytes, int], bytes]
) -> Iterator[tuple[bytes, int]]:
    """Yield the changed texts with their offsets; a filter drops a document by returning an empty one."""
    for text, offset in pairs:
        if changed := filter_one(text, offset):
            yield changed, offset


def _drop_outside_body(text: bytes, offset: int, body: tuple[int, int] | None, counts: Counter[str]) -> bytes:
    """Return the part of a document that lies in the body of the file; the document may hold a mark."""
    kept = between_marks(text)
    if body and ((offset < body[0] and not _START.search(text)) or offset >= body[1]):
        kept = b""
    counts["gutenberg_documents"] += kept != text
    return kept


def _normalize(text: bytes, counts: Counter[str]) -> bytes:
    if text.isascii():
        return text
    changed = unicodedata.normalize("NFC", text.decode()).encode()
    counts["normalized_documents"] += changed != text
    return changed


def _has_limits(settings: TokenizeConfig) -> bool:
    return settings.min_document_bytes > 1 or settings.max_document_bytes is not None


def _drop_by_length(text: bytes, settings: TokenizeConfig, counts: Counter[str]) -> bytes:
    if len(text) < settings.min_document_bytes:
        counts["too_short_documents"] += 1
        return b""
    if settings.max_document_bytes is not None and len(text) > settings.max_document_bytes:
        counts["too_long_documents"] += 1
        return b""
    return text
