"""Documents of any file of a corpus, whatever its format, and the check of all of it before anything is written."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jobs.config import TokenizeConfig
from jobs.corpus.content import BYTE_ORDER_MARK, read_blocks
from jobs.corpus.documents import Documents, read_text
from jobs.corpus.filters import BodyFinder, clean, is_cleaned
from jobs.corpus.formats.ids import check_ids, ids_as_words, looks_like_a_list
from jobs.corpus.formats.records import read_json_lines, read_parquet
from jobs.corpus.splits import ByteRange
from jobs.corpus.texts import Texts
from jobs.errors import InputError
from jobs.sources.listing import Source
from jobs.sources.names import text_format
from jobs.sources.utf8 import Utf8Check, replace_invalid

_PACKED = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "bzip2": re.compile(rb"BZh[1-9]1AY&SY"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zip": re.compile(rb"PK\x03\x04"),
}


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """What reading a source once from end to end tells."""

    sha256: str
    """Of its content, decompressed."""
    text_bytes: int
    """How much text it holds."""
    has_text: bool
    """Whether there is more than whitespace in it."""
    counts: Counter[str]
    """What is unusual in it."""
    body: tuple[int, int] | None = None
    """Where its text begins and ends, if headers and footers are to be left out."""


def read_documents(part: ByteRange, settings: TokenizeConfig) -> Iterator[Documents]:
    """Read the documents that begin in a part of a file, in batches that fit in memory.

    Raises:
        InputError: if the file cannot be read, or a record is not what it should be.
    """
    batches = _read(part, settings)
    if is_cleaned(settings):
        batches = (clean(batch, settings, part.source.body) for batch in batches)
    yield from batches


def check_sources(parts: Sequence[ByteRange], *, settings: TokenizeConfig) -> list[CheckedSource]:
    """Read whole files once: hash them, and check that they can be read as the settings say.

    Raises:
        InputError: naming the file that cannot be read and the offset, line or row that is wrong.
    """
    return [_check_source(part.source, settings) for part in parts]


def _read(part: ByteRange, settings: TokenizeConfig) -> Iterator[Documents]:
    if part.source.format == "jsonl":
        yield from read_json_lines(part, settings)
    elif part.source.format == "parquet":
        yield from read_parquet(part, settings)
    else:
        for batch in read_text(part, settings.documents):
            whole = _replaced(batch) if settings.invalid_utf8 == "replace" else batch
            yield ids_as_words(whole) if settings.input == "ids" else whole


def _replaced(batch: Documents) -> Documents:
    pairs = [replace_invalid(text) for text in batch.texts]
    counts = batch.counts + Counter(replaced_letters=sum(count for _, count in pairs))
    return replace(batch, texts=Texts.of(text for text, _ in pairs), counts=counts)


def _check_source(source: Source, settings: TokenizeConfig) -> CheckedSource:
    if source.format != "txt" and settings.documents == "file":
        raise InputError(f"{source.uri}: tokenize.documents=file is for text files; set tokenize.documents=record")
    if settings.input == "ids":
        check_ids(source)
    scan = _Scan(source, settings)
    for block in read_blocks(source):
        scan.add(block)
    scan.end()
    if source.format == "txt":
        body = scan.marks.body if scan.marks else None
        return CheckedSource(scan.digest.hexdigest(), scan.size, scan.has_text, +scan.counts, body)
    size = sum(int(batch.texts.sizes.sum()) for batch in read_documents(ByteRange.whole(source), settings))
    return CheckedSource(scan.digest.hexdigest(), size, size > 0, +scan.counts)


class _Scan:
    """Looks at the content of a file as it comes."""

    def __init__(self, source: Source, settings: TokenizeConfig) -> None:
        self.digest, self.counts = hashlib.sha256(), Counter[str]()
        self.marks = BodyFinder() if settings.drop_gutenberg and source.format == "txt" else None
        self.size, self.has_text = 0, False
        self._is_text = source.format != "parquet"
        self._utf8 = Utf8Check(source.uri) if self._is_text and settings.invalid_utf8 == "refuse" else None
        self._uri, self._refuses_lists = source.uri, settings.input == "text"
        self._field = None if text_format(source.name) else settings.field
        self._last = b""

    def add(self, block: bytes) -> None:
        """Look at one block more."""
        self.digest.update(block)
        if self._is_text and not self.size:
            self._refuse_other(block)
        if self._utf8:
            self._utf8.add(block)
        if self._is_text and not self.size and self._refuses_lists and looks_like_a_list(block):
            raise InputError(f"{self._uri}: a list of word,[ids],frequency, not text; set tokenize.input=ids")
        if self._is_text:
            if self.marks:
                self.marks.add(block)
            self.has_text = self.has_text or bool(block.removeprefix(b"" if self.size else BYTE_ORDER_MARK).strip())
            self.counts["byte_order_marks"] += not self.size and block.startswith(BYTE_ORDER_MARK)
            if b"\r" in block or self._last == b"\r":  # to look for one byte takes a thirtieth of the time
                self.counts["crlf_line_ends"] += block.count(b"\r\n") + (self._last + block[:1] == b"\r\n")
            if b"\0" in block:
                self.counts["nul_bytes"] += block.count(b"\0")
            self._last = block[-1:]
        self.size += len(block)

    def end(self) -> None:
        """There is no more."""
        if self._utf8:
            self._utf8.add(b"")
        self.counts["empty_files"] += not self.size

    def _refuse_other(self, beginning: bytes) -> None:
        """Refuse what was taken as text because its name tells nothing, but begins as something else."""
        for kind, magic in _PACKED.items():
            if magic.match(beginning):
                raise InputError(
                    f"{self._uri}: its content is {kind}, not text; unpack it, or let its name tell what is in"
                    " it (.txt, .jsonl or .parquet, then .gz, .bz2 or .zst)"
                )
        if self._field and _is_record(beginning.partition(b"\n")[0], self._field):
            raise InputError(
                f"{self._uri}: begins with a record of JSON that has '{self._field}'; name the file .jsonl, or .txt if"
                " it is to be read as it stands"
            )


def _is_record(line: bytes, field: str) -> bool:
    """Whether a line of a file is a JSON object with that field."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and field in record
