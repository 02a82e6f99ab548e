"""Documents of any file of a corpus, whatever its format, and the check of all of it before anything is written."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jobs.config import TokenizeConfig
from jobs.errors import InputError
from jobs.text.content import BYTE_ORDER_MARK, read_blocks
from jobs.text.corpus import ByteRange, Source
from jobs.text.documents import Documents, read_text
from jobs.text.records import read_json_lines, read_parquet
from jobs.text.utf8 import Utf8Check, replace_invalid


@dataclass(frozen=True)
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


def read_documents(part: ByteRange, settings: TokenizeConfig) -> Iterator[Documents]:
    """Read the documents that begin in a part of a file, in batches that fit in memory.

    Raises:
        InputError: if the file cannot be read, or a record is not what it should be.
    """
    if part.source.format == "jsonl":
        yield from read_json_lines(part, settings)
    elif part.source.format == "parquet":
        yield from read_parquet(part, settings)
    else:
        for batch in read_text(part, settings.documents):
            yield _replaced(batch) if settings.invalid_utf8 == "replace" else batch


def check_sources(parts: Sequence[ByteRange], *, settings: TokenizeConfig) -> list[CheckedSource]:
    """Read whole files once: hash them, and check that they can be read as the settings say.

    Raises:
        InputError: naming the file that cannot be read and the offset, line or row that is wrong.
    """
    return [_check_source(part.source, settings) for part in parts]


def _replaced(batch: Documents) -> Documents:
    pairs = [replace_invalid(text) for text in batch.texts]
    counts = batch.counts + Counter(replaced_letters=sum(count for _, count in pairs))
    return replace(batch, texts=[text for text, _ in pairs], counts=counts)


def _check_source(source: Source, settings: TokenizeConfig) -> CheckedSource:
    if source.format != "txt" and settings.documents == "file":
        raise InputError(f"{source.uri}: tokenize.documents=file is for text files; set tokenize.documents=record")
    digest, counts = hashlib.sha256(), Counter[str]()
    is_text = source.format != "parquet"
    check = Utf8Check(source.uri) if is_text and settings.invalid_utf8 == "refuse" else None
    size, has_text, last = 0, False, b""
    for block in read_blocks(source):
        digest.update(block)
        if check:
            check.add(block)
        if is_text:
            has_text = has_text or bool(block.removeprefix(b"" if size else BYTE_ORDER_MARK).strip())
            counts["byte_order_marks"] += not size and block.startswith(BYTE_ORDER_MARK)
            counts["crlf_line_ends"] += block.count(b"\r\n") + (last == b"\r" and block.startswith(b"\n"))
            counts["nul_bytes"] += block.count(b"\0")
            last = block[-1:]
        size += len(block)
    if check:
        check.add(b"")
    counts["empty_files"] += not size
    if source.format == "txt":
        return CheckedSource(digest.hexdigest(), size, has_text, counts)
    sizes = [len(text) for batch in read_documents(source.whole(), settings) for text in batch.texts]
    return CheckedSource(digest.hexdigest(), sum(sizes), bool(sizes), counts)
