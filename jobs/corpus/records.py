"""Reads documents from JSONL and Parquet files. The text of each record is split into documents as a text file is.

A line of JSONL belongs to the byte range in which it begins. A row group of Parquet belongs to the byte range in which
its first column chunk begins. So both formats can be divided into byte ranges.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.content import open_seekable, read_blocks
from jobs.corpus.documents import Documents, count_line_ends, plain_line_ends, read_text, split_documents
from jobs.corpus.gutenberg import between_marks
from jobs.corpus.parquet import open_parquet
from jobs.errors import InputError
from jobs.sources.contents import BYTE_ORDER_MARK
from jobs.sources.listing import Source
from jobs.sources.utf8 import encode_text, replace_invalid

_BATCH_ROWS = 512
_TEXT_TYPES: tuple[Any, ...] = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary),
    pa.types.is_null,  # a column of nulls only, as one file of many may have
)
_BORDER = b"\n\n"  # separates the texts of records, whether documents are paragraphs or lines


def read_json_lines(part: ByteRange, settings: TokenizeConfig) -> Iterator[Documents]:
    """Read the documents of the records whose lines begin in a range of a JSONL file. Empty lines are skipped."""
    for lines in read_text(part, "line"):
        records = _Records(settings)
        for line, offset in zip(lines.texts, lines.offsets.tolist(), strict=True):
            try:
                # json parses only whole lines, so replaced characters in other fields are counted, too.
                record = line.removeprefix(BYTE_ORDER_MARK)  # mid-file, if several files were concatenated
                whole, num_replaced = replace_invalid(record) if settings.invalid_utf8 == "replace" else (record, 0)
                records.add(_json_text(whole, settings.field), offset, num_replaced)
            except ValueError as error:
                where = f"{part.source.uri}: line {_line_number(part.source, offset)}"
                raise InputError(f"{where}: {error}") from None
        yield records.documents()


def read_parquet(part: ByteRange, settings: TokenizeConfig) -> Iterator[Documents]:
    """Read the documents of the row groups that begin in a range of a Parquet file."""
    if not part.source.size:
        return
    with open_seekable(part.source) as stream, open_parquet(stream, part.source.uri) as file:
        _check_column(part.source, file.schema_arrow, settings.field)
        row = 0
        for group in range(file.metadata.num_row_groups):
            metadata = file.metadata.row_group(group)
            first = metadata.column(0)
            start = first.dictionary_page_offset or first.data_page_offset
            if part.source.compression or part.start <= start < part.end:
                for texts in _texts_of(file, group, settings.field):
                    yield _documents_of_rows(part.source, texts, row, settings)
                    row += len(texts)
            else:
                row += metadata.num_rows


class _Records:
    """Collects the texts of records, splits them into documents, and counts unusual content such as null records."""

    def __init__(self, settings: TokenizeConfig) -> None:
        self._settings = settings
        self._texts: list[bytes] = []
        self._offsets: list[int] = []
        self._counts = Counter[str]()

    def add(self, text: str | bytes | None, offset: int, num_replaced: int = 0) -> None:
        """Add a record's text, or None for a null record.

        `num_replaced` is the number of characters of the record that were already replaced by U+FFFD.
        """
        self._counts["null_records"] += text is None
        data, more_replaced = encode_text(text or b"", self._settings.invalid_utf8)
        self._counts["replaced_letters"] += num_replaced + more_replaced
        data = data.strip()
        if data and self._settings.drop_gutenberg:
            kept, has_marks = between_marks(data)
            self._counts["gutenberg_documents"] += kept != data
            self._counts["unmarked_texts"] += not has_marks
            data = kept
        if not data:
            self._counts["empty_documents"] += 1
            return
        self._texts.append(data)
        self._offsets.append(offset)

    def documents(self) -> Documents:
        """Return the documents of all records that were added."""
        if self._settings.documents == "record":
            return Documents.of(map(plain_line_ends, self._texts), self._offsets, self._counts)
        starts = np.cumsum([0, *(len(text) + len(_BORDER) for text in self._texts)])
        texts, begins = split_documents(_BORDER.join(self._texts), self._settings.documents)
        records = np.searchsorted(starts, begins, "right") - 1
        return Documents(texts, np.array(self._offsets, np.int64)[records], self._counts)


def _json_text(line: bytes, field: str) -> str | None:
    """Return the text in a field of a JSON object, or None if the field is null.

    Raise ValueError if the line is not a JSON object, or if the field is missing or is not a string.
    """
    try:
        text = line.decode()
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            if text in ("[", "{"):
                raise ValueError("the JSON spans several lines; write each record on one line, as jq -c does") from None
            raise ValueError(f"not valid JSON ({error.msg}, column {error.colno}); correct this line") from None
        except UnicodeError:
            raise
        except ValueError:  # a number of thousands of digits
            record = json.loads(text, parse_int=float)
    except RecursionError:
        raise ValueError("JSON nested too deeply to be read; simplify this record") from None
    if not isinstance(record, dict):
        raise ValueError(
            f"the JSON value is of type {type(record).__name__}, not an object with the field '{field}'; write an"
            " object on each line"
        )
    if field not in record:
        raise ValueError(
            f"the record has no field '{field}' (its fields: {_list_names(record)}); set tokenize.field to the field"
            " with the text"
        )
    text = record[field]
    if text is not None and not isinstance(text, str):
        raise ValueError(
            f"the field '{field}' holds {type(text).__name__} instead of text; set tokenize.field to the field with the"
            " text"
        )
    return text


def _line_number(source: Source, offset: int) -> int:
    number, position, last = 1, 0, b""
    for block in read_blocks(source):
        before = block[: max(0, offset - position)]
        number += count_line_ends(before) - (last + before[:1] == b"\r\n")
        position, last = position + len(block), block[-1:]
        if position >= offset:
            break
    return number


def _check_column(source: Source, schema: pa.Schema, name: str) -> None:
    if name not in schema.names:
        raise InputError(
            f"{source.uri}: the file has no column '{name}' (its columns: {_list_names(schema.names)}); set"
            " tokenize.field to the column with the text"
        )
    if schema.names.count(name) > 1:
        raise InputError(f"{source.uri}: {schema.names.count(name)} columns are named '{name}'; rename all but one")
    kind: Any = schema.field(name).type
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if not any(test(kind) for test in _TEXT_TYPES):
        raise InputError(
            f"{source.uri}: the column '{name}' holds {kind} instead of text; set tokenize.field to the column with the"
            " text"
        )


def _texts_of(file: pq.ParquetFile, group: int, column: str) -> Iterator[list[bytes | None]]:
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column]):
        # Not column 0: for the name "a.b", Arrow also reads the field b of a column a.
        values: Any = batch.column(batch.schema.names.index(column))
        if isinstance(values, pa.DictionaryArray):
            values = values.dictionary_decode()
        yield values.cast(pa.large_binary()).to_pylist()  # as bytes: Arrow does not ensure that strings are UTF-8


def _documents_of_rows(source: Source, texts: list[bytes | None], row: int, settings: TokenizeConfig) -> Documents:
    records = _Records(settings)
    for i, text in enumerate(texts):
        try:
            records.add(text, row + i)
        except ValueError as error:
            raise InputError(f"{source.uri}: row {row + i}: {error}") from None
    return records.documents()


def _list_names(names: Any) -> str:
    """Return at most the first eight names, joined by commas, for a message."""
    found = [str(name) for name in names]
    return ", ".join(found[:8]) + (", ..." if len(found) > 8 else "") if found else "none"
