"""Corpora: files of every format and compression, damaged, that change while they are read, with any settings."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.config import resolve
from jobs.corpus.byte_ranges import divide_sources
from jobs.corpus.check import check_corpus
from jobs.corpus.reading import read_documents, sample_documents
from jobs.engine.inline import InlineEngine
from jobs.lake.uri import to_uri
from jobs.sources.listing import list_corpus
from nightjar.tasks import preflight
from tests.fuzz.damage import COMPRESS, damage, pack, random_text
from tests.fuzz.registry import Case, family
from tests.support.datasets import Pipeline

_ODD_VALUES = ("null", "3", "NaN", "1e999", "9" * 5000, "[]", '"\\ud800"', '{"text": "x"}', "true", "[" * 3000)
_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())


def _plain(rng: Random) -> bytes:
    return random_text(rng).encode()


def _json_lines(rng: Random) -> bytes:
    lines = [_record(rng) for _ in range(rng.randint(0, 12))]
    return rng.choice(("\n", "\n", "\r\n", "\r", "\n\n")).join(lines).encode()


def _record(rng: Random) -> str:
    record: dict[str, Any] = {"id": rng.randint(0, 99), "text": random_text(rng, 12)}
    line = json.dumps(record, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.05:
        key = rng.choice(("text", "other"))
        line = f'{line[:-1]}, "{key}": {rng.choice(_ODD_VALUES)}}}'
    return line


def _json_document(rng: Random) -> bytes:
    records = [{"text": random_text(rng, 5)} for _ in range(rng.randint(0, 3))]
    return json.dumps(records, indent=rng.choice((None, 2))).encode()


def _parquet(rng: Random) -> bytes:
    texts = [None if rng.random() < 0.1 else random_text(rng, 12) for _ in range(rng.randint(0, 20))]
    columns = [_column(rng, texts), pa.array(range(len(texts)))]
    names = ["text", rng.choice(("id", "id", "id", "text", "a.text", ""))]
    sink = io.BytesIO()
    pq.write_table(
        pa.table(columns, names),
        sink,
        row_group_size=rng.choice((1, 3, 100)),
        compression=rng.choice(("none", "snappy", "zstd", "gzip", "lz4", "brotli")),
        use_dictionary=rng.random() < 0.5,
        data_page_version=rng.choice(("1.0", "2.0")),
        write_page_checksum=rng.random() < 0.5,
        store_schema=rng.random() < 0.8,
    )
    return sink.getvalue()


def _column(rng: Random, texts: Sequence[str | None]) -> Any:
    if rng.random() < 0.1:
        return rng.choice(
            (
                pa.nulls(len(texts)),
                pa.array(range(len(texts))),
                pa.array([[text] for text in texts], pa.list_(pa.string())),
                pa.array([{"x": text} for text in texts], pa.struct([("x", pa.string())])),
            )
        )
    kind = rng.choice(_TYPES)
    values = texts if "string" in str(kind) else [None if text is None else text.encode() for text in texts]
    column = pa.array(values, kind)
    return column.dictionary_encode() if rng.random() < 0.2 and "view" not in str(kind) else column


def _ids(rng: Random) -> bytes:
    lines = [f"{rng.choice('abc')},[{rng.randint(0, 99)},{rng.randint(0, 9)}],{rng.randint(0, 9)}" for _ in range(9)]
    return "\n".join(lines if rng.random() < 0.5 else [random_text(rng, 3), "1 2 3", "4,5"]).encode()


_FORMATS: dict[str, tuple[Callable[[Random], bytes], tuple[str, ...]]] = {
    "text": (_plain, ("a.txt", "A.TXT", "part-r-00000", "a.log", "a.txt")),
    "records": (_json_lines, ("a.jsonl", "a.ndjson", "A.JSONL", "a.jsonl", "a.txt", "part-00000")),
    "document": (_json_document, ("a.jsonl", "a.txt", "a.json")),
    "table": (_parquet, ("a.parquet", "A.Parquet", "a.parquet")),
    "ids": (_ids, ("a.txt", "a.jsonl")),
}


def _random_settings(rng: Random) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "windows.size": 1,
        "tokenize.documents": rng.choice(("paragraph", "line", "record") * 3 + ("file",)),
        "tokenize.invalid_utf8": rng.choice(("refuse", "replace")),
        "tokenize.split_bytes": 4096,
        "tokenize.vocab_size": 300,
    }
    if rng.random() < 0.3:
        chosen |= {
            f"tokenize.{name}": True for name in rng.sample(("drop_gutenberg", "normalize_nfc"), rng.randint(0, 2))
        }
        chosen |= {"tokenize.min_document_bytes": rng.randint(0, 9), "tokenize.max_document_bytes": rng.randint(1, 99)}
    if rng.random() < 0.08:
        chosen |= {"tokenize.input": "ids", "tokenize.kind": "word"}
    if rng.random() < 0.1:
        chosen["tokenize.field"] = rng.choice(("body", "a.text", "", "text.x")) or "text"
    return chosen


def _write_file(rng: Random, folder: Path) -> tuple[Path, str]:
    """Write a random file; return its path and a description."""
    kind = rng.choice(("text", "text", "records", "records", "table", "table", "document", "ids"))
    make, names = _FORMATS[kind]
    data, name = make(rng), rng.choice(names)
    data, first = damage(rng, data)
    suffix = rng.choice((None, None, *COMPRESS))
    if suffix:
        name += rng.choice((f".{suffix}", f".{suffix.upper()}"))
        data = pack(rng, data, suffix)
        data, second = damage(rng, data) if first == "nothing" else (data, "nothing")
        first = f"{first}, then {second}"
    path = folder / f"{rng.randrange(9)}-{name}" if not name.startswith("part") else folder / name
    path.write_bytes(data)
    return path, f"{path.name} ({kind}, {first}, {len(data)} bytes)"


def _change(rng: Random, path: Path) -> tuple[Callable[[], None], str]:
    """Return what happens to a file after it was listed, and its name."""
    name = rng.choice(
        ("nothing",) * 60 + ("vanishes", "grows", "shrinks", "becomes a pipe", "becomes a folder", "locked")
    )

    def change() -> None:
        data = path.read_bytes()
        if name in ("grows", "shrinks"):
            path.write_bytes(data + b"more" if name == "grows" else data[:-1])
        elif name == "locked":
            path.chmod(0)
        elif name != "nothing":
            path.unlink()
            if name != "vanishes":
                (os.mkfifo if name == "becomes a pipe" else os.mkdir)(path)

    return change, name


@family("corpus")
def _corpus(rng: Random, folder: Path) -> Case:
    """The listing, the preflight's check, the step's check, and the reading to documents in ranges of any size."""
    files = [_write_file(rng, folder) for _ in range(rng.choice((1,) * 6 + (2, 3)))]
    change, change_name = _change(rng, files[0][0])
    place = rng.choice((folder, files[0][0], f"{folder}/*", f"{folder}/**/*.*"))
    settings = _random_settings(rng)
    split_bytes = rng.choice((1, 7, 100, 1 << 20))
    moment = rng.randrange(3)

    def read() -> None:
        config = resolve(to_uri(str(place)), "tiny", settings)
        listing = list_corpus(config.corpus)
        steps = [
            lambda: preflight.check_corpus(config),
            lambda: check_corpus(listing, config.tokenize, InlineEngine()),
        ]
        done = []
        for number, step in enumerate([*steps, lambda: None]):
            if number == moment:
                change()
            done.append(step())
        checked = [entry.source for entry in done[1]]
        is_whole = config.tokenize.documents == "file"
        parts = [part for group in divide_sources(checked, split_bytes, is_whole) for part in group]
        whole = [part for group in divide_sources(checked, 1 << 30, is_whole) for part in group]
        texts, expected = (
            [text for part in some for batch in read_documents(part, config.tokenize) for text in batch.texts]
            for some in (parts, whole)
        )
        if not config.tokenize.drop_gutenberg:  # a mark may lie across the end of a range
            assert texts == expected, f"{len(texts)} documents in ranges, {len(expected)} in whole files"
        assert all(text == text.strip() and b"\r" not in text for text in expected)
        sample_documents(whole, share=0.5, settings=config.tokenize)

    shown = ", ".join(description for _, description in files)
    return Case(f"{shown}; {change_name}; {place}; {settings}; ranges of {split_bytes}", read)


@family("tokenize")
def _step(rng: Random, folder: Path) -> Case:
    """The whole tokenize step, which writes a dataset or nothing."""
    texts = folder / "texts"
    texts.mkdir()
    (texts / "good.txt").write_bytes(b"A good file.\n\n" * rng.randint(0, 30))
    _, shown = _write_file(rng, texts)
    settings = {key.replace(".", "__"): value for key, value in _random_settings(rng).items()}
    lake = folder / "lake"
    pipeline = Pipeline(lake.as_uri(), texts.as_uri(), **settings)
    run = partial(_tokenize_and_split, pipeline) if rng.random() < 0.2 else pipeline.tokenize
    return Case(f"{shown}; {settings}", run, lake)


def _tokenize_and_split(pipeline: Pipeline) -> None:
    pipeline.tokenize()
    pipeline.windows()
