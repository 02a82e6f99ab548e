"""Checks a corpus: reads each file once from end to end, before anything is written."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange, divide_sources
from jobs.corpus.content import BYTE_ORDER_MARK, read_blocks
from jobs.corpus.filters import BodyFinder
from jobs.corpus.ids import check_ids, looks_like_a_list
from jobs.corpus.reading import read_documents
from jobs.engine.base import Engine
from jobs.errors import InputError
from jobs.sources.listing import Source, list_sources
from jobs.sources.names import text_format
from jobs.sources.utf8 import Utf8Check

_SIGNATURES = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "bzip2": re.compile(rb"BZh[1-9]1AY&SY"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zip": re.compile(rb"PK\x03\x04"),
}


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """A source that was read from end to end."""

    source: Source
    sha256: str
    """Hash of the content, decompressed."""
    text_bytes: int
    """Bytes of text in it."""
    has_text: bool
    """True if it holds more than whitespace."""
    counts: Counter[str]
    """Unusual things in it, such as byte order marks."""

    def describe(self) -> dict[str, Any]:
        """Return the file's entry in the manifest."""
        return {"name": self.source.name, "size": self.source.size, "sha256": self.sha256}


def check_corpus(corpus: str, settings: TokenizeConfig, engine: Engine) -> list[CheckedSource]:
    """List the files of a corpus and read each one once.

    Raises:
        InputError: naming the file that cannot be read, and the offset, line or row that is wrong.
    """
    sources = list_sources(corpus)
    tasks = divide_sources(sources, settings.split_bytes, whole_files=True)
    results = engine.map(partial(check_sources, settings=settings), tasks, "check the corpus")
    checked = [source for task in results for source in task]
    if not any(source.has_text for source in checked):
        where = ", ".join(corpus.splitlines())
        raise InputError(f"{where}: no text in its {len(sources)} files, only whitespace or nothing")
    return checked


def check_sources(parts: Sequence[ByteRange], *, settings: TokenizeConfig) -> list[CheckedSource]:
    """Read whole files once: hash them, and check that they can be read with these settings."""
    return [_check_source(part.source, settings) for part in parts]


def _check_source(source: Source, settings: TokenizeConfig) -> CheckedSource:
    if source.format != "txt" and settings.documents == "file":
        raise InputError(f"{source.uri}: tokenize.documents=file is for text files; set tokenize.documents=record")
    if settings.input == "ids":
        check_ids(source)
    digest, size = hashlib.sha256(), 0
    scan = _TextScan(source, settings)
    for block in read_blocks(source):
        digest.update(block)
        size += len(block)
        if source.format != "parquet":
            scan.add(block)
    if scan.utf8:
        scan.utf8.add(b"")
    counts = scan.counts + Counter(empty_files=int(not size))
    has_text = scan.has_text
    if source.format != "txt":
        batches = read_documents(ByteRange.whole(source), settings)
        size = sum(int(batch.texts.sizes.sum()) for batch in batches)
        has_text = size > 0
    elif scan.body_finder:
        source = replace(source, body=scan.body_finder.body)
    return CheckedSource(source, digest.hexdigest(), size, has_text, counts)


class _TextScan:
    """Examines the content of a text file block by block."""

    def __init__(self, source: Source, settings: TokenizeConfig) -> None:
        self.counts, self.has_text = Counter[str](), False
        self.body_finder = BodyFinder() if settings.drop_gutenberg and source.format == "txt" else None
        self.utf8 = Utf8Check(source.uri) if settings.invalid_utf8 == "refuse" else None
        self._uri, self._refuses_lists = source.uri, settings.input == "text"
        self._field = None if text_format(source.name) else settings.field
        self._last = b""

    def add(self, block: bytes) -> None:
        """Examine the next block, which is not empty."""
        is_first = not self._last
        if is_first:
            self._refuse_other_formats(block)
        if self.utf8:
            self.utf8.add(block)
        if is_first and self._refuses_lists and looks_like_a_list(block):
            raise InputError(f"{self._uri}: a list of word,[ids],frequency, not text; set tokenize.input=ids")
        if self.body_finder:
            self.body_finder.add(block)
        has_mark = is_first and block.startswith(BYTE_ORDER_MARK)
        self.has_text = self.has_text or bool(block[len(BYTE_ORDER_MARK) if has_mark else 0 :].strip())
        self.counts["byte_order_marks"] += has_mark
        if b"\r" in block or self._last == b"\r":  # looking for one byte first takes a thirtieth of the time
            self.counts["crlf_line_ends"] += block.count(b"\r\n") + (self._last + block[:1] == b"\r\n")
        if b"\0" in block:
            self.counts["nul_bytes"] += block.count(b"\0")
        self._last = block[-1:]

    def _refuse_other_formats(self, beginning: bytes) -> None:
        """Refuse a file that would be read as text because of its name, but begins as another format."""
        for kind, signature in _SIGNATURES.items():
            if signature.match(beginning):
                raise InputError(
                    f"{self._uri}: its content is {kind}, not text; unpack it, or rename it so that its name ends in"
                    " its format (.txt, .jsonl or .parquet, then .gz, .bz2 or .zst)"
                )
        if self._field and _is_record(beginning.partition(b"\n")[0], self._field):
            raise InputError(
                f"{self._uri}: begins with a JSON record that has the field '{self._field}'; rename the file to .jsonl,"
                " or to .txt to read it as plain text"
            )


def _is_record(line: bytes, field: str) -> bool:
    """Return whether a line is a JSON object with this field."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and field in record
