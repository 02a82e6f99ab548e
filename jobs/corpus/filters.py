"""Filters single documents. Each filter counts what it changes or drops.

Documents have no whitespace at their ends and are never empty, so no filter trims them.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from jobs.config import TokenizeConfig
from jobs.corpus.documents import Documents
from jobs.corpus.gutenberg import keep_bodies
from jobs.sources.listing import Mark


def has_filters(settings: TokenizeConfig) -> bool:
    """Return whether any filter is on."""
    has_limits = settings.min_document_bytes > 1 or settings.max_document_bytes is not None
    return settings.drop_gutenberg or settings.normalize_nfc or has_limits


def filter_documents(batch: Documents, settings: TokenizeConfig, marks: Sequence[Mark] | None) -> Documents:
    """Return the documents of one file that pass the filters, with the changes that filters make to them.

    `marks` holds the marks of Project Gutenberg in a text file. It is None if the file was not searched for marks.
    """
    counts = Counter(batch.counts)
    kept: list[tuple[bytes, int]] = []
    for document, offset in zip(batch.texts, batch.offsets.tolist(), strict=True):
        text = keep_bodies(document, offset, marks) if marks else document
        counts["gutenberg_documents"] += text != document
        if text and settings.normalize_nfc:
            text = _normalize(text, counts)
        if text and not _is_dropped_by_length(text, settings, counts):
            kept.append((text, offset))
    return Documents.of((text for text, _ in kept), (offset for _, offset in kept), counts)


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
