"""Reads and writes embeddings as CSV (``token,id,v0,v1,...``, RFC 4180) and Parquet. Also reads word2vec's text format.

Tokens have the names that ``tokenizer.json`` gives them (``Ġking`` is `` king`` in byte-level BPE). These names are
unique and have no whitespace, and the tokenizer maps them to ids. The readers refuse a file with any fault that could
silently give wrong vectors.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from jobs.corpus.parquet import open_parquet
from jobs.embeddings.word2vec import Vectors
from jobs.errors import InputError, shorten
from jobs.lake.manifest import FileEntry
from jobs.lake.store import read_bytes, read_file, read_manifest, write_shard
from jobs.lake.uri import ending_of, join, to_uri

csv.field_size_limit(2**31 - 1)  # a token may be longer than the standard library's limit of 128 KiB

CSV, PARQUET = ".csv", ".parquet"
_MOST_DIGITS = 12  # limit for the number of tokens, and for an id
_WORD2VEC = (".txt", ".vec")


@dataclass(frozen=True)
class Embeddings:
    """Tokens and their vectors."""

    tokens: list[str]
    """The names of the tokens, as in ``tokenizer.json``."""
    ids: npt.NDArray[np.int64] | None
    """The token ids. None if the file has no ids."""
    vectors: Vectors
    """The vectors, of shape (number of tokens, size of a vector). Row i belongs to ``tokens[i]``."""


def token_names(tokenizer_json: bytes) -> list[str]:
    """Return a list in which item i is the name of the token with id i. The name is "" if no token has this id."""
    ids = Tokenizer.from_str(tokenizer_json.decode()).get_vocab(with_added_tokens=True)
    names = [""] * (1 + max(ids.values()))
    for name, token_id in ids.items():
        names[token_id] = name
    return names


def write_embeddings(folder_uri: str, embeddings: Embeddings, counts: npt.NDArray[np.int64]) -> list[FileEntry]:
    """Write embeddings below `folder_uri` as CSV and as Parquet. The embeddings must have ids.

    Only the Parquet file (``token, id, count, vector``) has `counts`: how often each token occurs in the corpus.
    """
    assert embeddings.ids is not None, "embeddings need ids to be written"
    size = embeddings.vectors.shape[1]
    flat = pa.array(np.ascontiguousarray(embeddings.vectors).ravel())
    named = {"token": pa.array(embeddings.tokens, pa.string()), "id": pa.array(embeddings.ids)}
    columns = {f"v{i}": pa.array(np.ascontiguousarray(embeddings.vectors[:, i])) for i in range(size)}
    vectors = pa.FixedSizeListArray.from_arrays(flat, size)
    text, binary = io.BytesIO(), io.BytesIO()
    pyarrow.csv.write_csv(pa.table({**named, **columns}), text)
    pq.write_table(pa.table({**named, "count": pa.array(counts), "vector": vectors}), binary)
    return [
        write_shard(folder_uri, f"embeddings{suffix}", file.getvalue(), tokens=len(embeddings.tokens))
        for suffix, file in ((CSV, text), (PARQUET, binary))
    ]


def read_embeddings(path_or_uri: str) -> Embeddings:
    """Read embeddings from a dataset's folder, or from a file: CSV, Parquet, or word2vec text (``.txt``, ``.vec``)."""
    uri = to_uri(path_or_uri)
    readers = {CSV: _from_csv, PARQUET: _from_parquet} | dict.fromkeys(_WORD2VEC, _from_word2vec)
    ending = ending_of(uri, readers)
    if not ending:
        return _from_dataset(uri)
    try:
        data = read_bytes(uri)
    except OSError as error:
        raise InputError(f"{uri}: cannot be read ({error.strerror or 'no such file'}); check the path") from None
    return readers[ending](data, uri)


def _from_dataset(folder_uri: str) -> Embeddings:
    try:
        manifest = read_manifest(folder_uri)
    except NotADirectoryError:
        manifest = None
    entry = next((entry for entry in manifest.files if entry.name.endswith(PARQUET)), None) if manifest else None
    if entry is None:
        known = ", ".join((CSV, PARQUET, *_WORD2VEC))
        raise InputError(
            f"{folder_uri}: no embeddings there; give the folder of an embeddings dataset, or a file named *{known}"
        )
    return _from_parquet(read_file(folder_uri, entry), join(folder_uri, entry.name))


def _from_csv(data: bytes, uri: str) -> Embeddings:
    reader = csv.reader(io.StringIO(_text(data, uri), newline=""), strict=True)
    builder = _EmbeddingsBuilder(uri)
    try:
        header = next(reader, [])
        size = len(header) - 2
        if size < 1 or header != ["token", "id", *(f"v{i}" for i in range(size))]:
            raise InputError(f"{uri}:1: the first line must be token,id,v0,v1,...")
        for row in reader:
            if len(row) != size + 2:
                raise InputError(
                    f"{uri}:{reader.line_num}: {len(row)} columns, but the first line has {size + 2}; correct this line"
                )
            builder.add(row[0], row[2:], reader.line_num, row[1])
    except csv.Error as error:
        raise InputError(f"{uri}:{reader.line_num}: not valid CSV ({error}); correct the file") from None
    return builder.embeddings()


def _from_word2vec(data: bytes, uri: str) -> Embeddings:
    """Read word2vec's text format.

    The first line is ``<number of tokens> <size of a vector>``. Then one line for each token has the token's name and
    the numbers of its vector, separated by spaces.
    """
    text = _text(data, uri)
    lines = text.rstrip("\r\n").split("\n" if "\n" in text else "\r")
    header = lines[0].split()
    if (
        len(header) != 2
        or not all(word.isdecimal() and len(word) < _MOST_DIGITS for word in header)
        or header[1] == "0"
    ):
        raise InputError(f"{uri}:1: the first line must be the number of tokens and the size of the vectors")
    builder, (num_tokens, size) = _EmbeddingsBuilder(uri), map(int, header)
    for number, line in enumerate(lines[1:], 2):
        token, *values = line.rstrip(" \r").split(" ")
        if len(values) != size:
            raise InputError(
                f"{uri}:{number}: the size of the vector is {len(values)}, but the first line gives {size}; write"
                f" {size} numbers"
            )
        builder.add(token, values, number)
    if len(lines) - 1 != num_tokens:
        raise InputError(
            f"{uri}:{len(lines)}: the file has {len(lines) - 1} tokens, but the first line gives {num_tokens}; correct"
            " the first line, or write the file again"
        )
    return builder.embeddings()


def _from_parquet(data: bytes, uri: str) -> Embeddings:
    with open_parquet(io.BytesIO(data), uri) as file:
        table = file.read()
        try:
            tokens, ids, vectors = (table.column(name) for name in ("token", "id", "vector"))
        except KeyError as error:
            raise InputError(f"{uri}: needs the columns token, id and vector ({error.args[0]}); add them") from None
        rows = zip(_tokens(tokens, uri), ids.to_pylist(), vectors.to_pylist(), strict=True)
    builder, size = _EmbeddingsBuilder(uri, "row"), 0
    for number, (token, token_id, vector) in enumerate(rows, 1):
        if not isinstance(vector, (list, NoneType)):
            raise InputError(f"{uri}: row {number}: the vector is {shorten(repr(vector))}, not a list of numbers")
        values = vector or []
        size = size if number > 1 else len(values)
        if len(values) != size:
            raise InputError(
                f"{uri}: row {number}: the size of the vector is {len(values)}, but {size} in the first row; write"
                f" {size} numbers"
            )
        builder.add(token, values, number, token_id)
    return builder.embeddings()


def _tokens(column: Any, uri: str) -> list[Any]:
    """Return the values of a column of tokens. Check that they are UTF-8, because Arrow does not check this."""
    tokens = []
    for row, token in enumerate(column, 1):
        try:
            tokens.append(token.as_py())
        except UnicodeDecodeError:
            raise InputError(f"{uri}: row {row}: the token is not UTF-8; write the file again with UTF-8") from None
    return tokens


class _EmbeddingsBuilder:
    """Collects the tokens and vectors of a file, and checks each line or row."""

    def __init__(self, uri: str, unit: str = "line") -> None:
        self._uri, self._unit = uri, unit
        self._lines: dict[str, int] = {}
        self._ids: dict[int, int] = {}
        self._vectors: list[Vectors] = []

    def add(self, token: Any, values: Sequence[Any], line: int, token_id: Any = None) -> None:
        """Add a token: its name, the numbers of its vector, and its id if the file has ids.

        `line` is the number of the line or row, for messages.
        """
        where = f"{self._uri}:{line}" if self._unit == "line" else f"{self._uri}: {self._unit} {line}"
        if not isinstance(token, str) or not token:
            raise InputError(f"{where}: the token has no name; write its name as in tokenizer.json")
        if self._lines.setdefault(token, line) != line:
            raise InputError(
                f"{where}: token {_quoted(token)} is already in {self._unit} {self._lines[token]}; remove one of them"
            )
        if token_id is not None and self._ids.setdefault(_id(token_id, where), line) != line:
            raise InputError(
                f"{where}: id {token_id} is already in {self._unit} {self._ids[int(token_id)]}; correct one of them"
            )
        try:
            vector = np.array(values, np.float32)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{where}: the vector has values that are not numbers ({_first_line(error)}); correct them"
            ) from None
        if vector.ndim != 1:
            raise InputError(f"{where}: the vector is a list of lists; write a list of numbers")
        if not np.isfinite(vector).all():
            raise InputError(f"{where}: the vector of {_quoted(token)} has a number that is not finite; correct it")
        self._vectors.append(vector)

    def embeddings(self) -> Embeddings:
        """Return the embeddings of all tokens that were added."""
        if not self._vectors or not len(self._vectors[0]):
            raise InputError(f"{self._uri}: has no vectors; give another file")
        ids = np.fromiter(self._ids, np.int64, len(self._ids)) if self._ids else None
        return Embeddings(list(self._lines), ids, np.stack(self._vectors))


def _quoted(token: str) -> str:
    return shorten(json.dumps(token))


def _id(value: Any, where: str) -> int:
    try:
        number = int(value)
    except (ValueError, TypeError, OverflowError):
        number = -1
    if not 0 <= number < 10**_MOST_DIGITS:
        raise InputError(f"{where}: {shorten(repr(value))} is not a token id; write a number from 0 on")
    return number


def _text(data: bytes, uri: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{uri}:{line}: not UTF-8; convert the file to UTF-8") from None


def _first_line(error: Exception) -> str:
    return shorten((str(error).splitlines() or [type(error).__name__])[0])
