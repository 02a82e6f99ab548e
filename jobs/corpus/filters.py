"""Filters of single documents; each counts what it changes or drops.

Documents have no whitespace at their ends and are never empty, so no filter trims them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

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
    has_limits = settings.min_document_bytes > 1 or settings.max_document_bytes is not None
    return settings.drop_gutenberg or settings.normalize_nfc or has_limits


def between_marks(text: bytes) -> bytes:
    """Return the part of a text between the marks of Project Gutenberg; without marks, all of it."""
    start, end = _START.search(text), _END.search(text)
    return text[start.end() if start else 0 : end.start() if end else None].strip()


def filter_documents(batch: Documents, settings: TokenizeConfig, body: tuple[int, int] | None) -> Documents:
    """Return the documents of one file that pass the filters, changed where a filter changes them.

    `body` holds the offsets of the text between the marks of Project Gutenberg in a text file, if these are looked for.
    """
    counts = Counter(batch.counts)
    kept: list[tuple[bytes, int]] = []
    for document, offset in zip(batch.texts, batch.offsets.tolist(), strict=True):
        text = _cut_to_body(document, offset, body, counts) if settings.drop_gutenberg else document
        if text and settings.normalize_nfc:
            text = _normalize(text, counts)
        if text and not _is_dropped_by_length(text, settings, counts):
            kept.append((text, offset))
    return Documents.of((text for text, _ in kept), (offset for _, offset in kept), counts)


def _cut_to_body(text: bytes, offset: int, body: tuple[int, int] | None, counts: Counter[str]) -> bytes:
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


def _is_dropped_by_length(text: bytes, settings: TokenizeConfig, counts: Counter[str]) -> bool:
    too_short = len(text) < settings.min_document_bytes
    too_long = settings.max_document_bytes is not None and len(text) > settings.max_document_bytes
    counts["too_short_documents"] += too_short
    counts["too_long_documents"] += too_long and not too_short
    return too_short or too_long
