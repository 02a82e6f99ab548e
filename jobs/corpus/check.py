"""Checks a corpus: reads each file once from end to end, before anything is written."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange, divide_sources
from jobs.corpus.content import BLOCK_BYTES, open_stream
from jobs.corpus.gutenberg import MarkFinder, has_real_marks
from jobs.corpus.ids import check_ids, looks_like_a_list
from jobs.corpus.reading import read_documents
from jobs.engine.base import Engine
from jobs.errors import InputError, counted
from jobs.sources.contents import BYTE_ORDER_MARK, is_markup, refuse_other_content
from jobs.sources.listing import Listing, Source, list_corpus
from jobs.sources.utf8 import Utf8Check

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """A source that was read from end to end."""

    source: Source
    sha256: str
    """SHA-256 of the decompressed content."""
    text_bytes: int
    """Bytes of text in the file."""
    has_text: bool
    """True if the file holds more than whitespace."""
    counts: Counter[str]
    """How often each kind of unusual content occurs in the file, such as byte order marks or NUL bytes."""

    def describe(self) -> dict[str, Any]:
        """Return the file's entry in the manifest."""
        return {"name": self.source.name, "size": self.source.size, "sha256": self.sha256}


def read_corpus(
    corpus: str, lake_uri: str, settings: TokenizeConfig, engine: Engine, progress: Callable[[str], None]
) -> tuple[Listing, list[CheckedSource]]:
    """List the files of a run's corpus, check them with `check_corpus`, and report their number and size."""
    listing = list_corpus(corpus, lake_uri=lake_uri)
    if left_out := listing.describe_left_out():
        progress(f"corpus: {left_out}")
    checked = check_corpus(listing, settings, engine)
    progress(f"corpus: {counted(len(checked), 'file')}, {listing.size:,} bytes")
    return listing, checked


def check_corpus(listing: Listing, settings: TokenizeConfig, engine: Engine) -> list[CheckedSource]:
    """Read each file of a corpus once, and check that it can be read with these settings.

    Raises:
        InputError: if a file cannot be read, or no file has text. The message names the file, and the offset, line or
            row that is wrong.
    """
    tasks = divide_sources(listing.sources, settings.split_bytes, whole_files=True)
    results = engine.map(partial(check_sources, settings=settings), tasks, "check the corpus")
    checked = [source for task in results for source in task]
    if not any(source.has_text for source in checked):
        where = ", ".join(listing.places)
        raise InputError(
            f"{where}: no text in its {counted(len(listing.sources), 'file')} (empty, or only whitespace); give files"
            " with text"
        )
    for source in checked:
        if source.counts["dictionary_files"]:
            log.warning(
                "%s: a dictionary, not a text: its words are sorted and distinct. Its ids are read in the file's order,"
                " but windows over them have no meaning; give the ids in the order of the text",
                source.source.uri,
            )
    return checked


def check_sources(parts: Sequence[ByteRange], *, settings: TokenizeConfig) -> list[CheckedSource]:
    """Read files once: hash them, and check that they can be read with these settings. Each part is a whole file."""
    return [_check_source(part.source, settings) for part in parts]


def _check_source(source: Source, settings: TokenizeConfig) -> CheckedSource:
    if source.format != "txt" and settings.documents == "file":
        raise InputError(
            f"{source.uri}: tokenize.documents=file works only with text files, and this file is .{source.format}; set"
            " tokenize.documents=record"
        )
    digest, size = hashlib.sha256(), 0
    scan = _TextScan(source, settings)
    with open_stream(source) as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
            size += len(block)
            if source.format != "parquet":
                scan.add(block)
        scan.counts["ignored_bytes"] += getattr(stream.raw, "ignored_bytes", 0)
    if scan.utf8:
        scan.utf8.add(b"")
    is_dictionary = settings.input == "ids" and check_ids(source)
    counts = scan.counts + Counter(empty_files=int(not size), dictionary_files=int(is_dictionary))
    has_text = scan.has_text
    if source.format != "txt":
        batches = read_documents(ByteRange.whole(replace(source, forgotten=())), settings)
        size = sum(int(batch.texts.sizes.sum()) for batch in batches)
        has_text = size > 0
    elif scan.mark_finder:
        source = replace(source, marks=scan.mark_finder.marks())
        counts["unmarked_texts"] += has_text and not has_real_marks(source.marks or ())
    return CheckedSource(source, digest.hexdigest(), size, has_text, counts)


class _TextScan:
    """Examines the bytes of a file block by block: refuses wrong formats, and counts unusual content."""

    def __init__(self, source: Source, settings: TokenizeConfig) -> None:
        self.counts, self.has_text = Counter[str](), False
        self.mark_finder = MarkFinder() if settings.drop_gutenberg and source.format == "txt" else None
        self.utf8 = Utf8Check(source.uri) if settings.invalid_utf8 == "refuse" else None
        self._uri, self._name, self._field = source.uri, source.name, settings.field
        self._is_text, self._refuses_lists = source.format == "txt", settings.input == "text"
        self._last = b""

    def add(self, block: bytes) -> None:
        """Examine the next block, which is not empty."""
        is_first = not self._last
        if is_first:
            refuse_other_content(self._uri, self._name, block, self._field)
            self.counts["markup_files"] += self._is_text and is_markup(block)
        if self.utf8:
            self.utf8.add(block)
        if is_first and self._refuses_lists and looks_like_a_list(block):
            raise InputError(
                f"{self._uri}: its lines have the form word,[ids],frequency, which is not text; set tokenize.input=ids"
            )
        if self.mark_finder:
            self.mark_finder.add(block)
        has_mark = is_first and block.startswith(BYTE_ORDER_MARK)
        self.has_text = self.has_text or bool(block[len(BYTE_ORDER_MARK) if has_mark else 0 :].strip())
        self.counts["byte_order_marks"] += has_mark
        if b"\r" in block or self._last == b"\r":  # this test takes a thirtieth of the time of counting CR and CRLF
            num_crlf = block.count(b"\r\n") + (self._last + block[:1] == b"\r\n")
            self.counts["crlf_line_ends"] += num_crlf
            self.counts["cr_line_ends"] += block.count(b"\r") - num_crlf
        if b"\0" in block:
            self.counts["nul_bytes"] += block.count(b"\0")
        self._last = block[-1:]
