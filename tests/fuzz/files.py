"""The other files that users give: prompts, embeddings and archives of models."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.config import GenerateConfig
from jobs.config.prompts import read_prompts
from jobs.embeddings.files import read_embeddings
from jobs.lake import store
from jobs.lake.manifest import FileEntry, Manifest
from jobs.model_io.archive import pack, unpack
from tests.fuzz.damage import damage, random_text
from tests.fuzz.registry import Case, family


def _written(rng: Random, folder: Path, name: str, data: bytes) -> tuple[Path, str]:
    data, how = damage(rng, data)
    path = folder / name
    path.write_bytes(data)
    return path, f"{name}, {how}: {data[:300]!r}"


@family("prompts")
def _prompts(rng: Random, folder: Path) -> Case:
    name = rng.choice(("p.txt", "p.jsonl", "P.JSONL", "p", "p.ndjson"))
    key = rng.choice(("prompt", "prompt", "prompt", "text"))
    records = [json.dumps({key: rng.choice((random_text(rng, 3), 3, None))}) for _ in range(rng.randint(0, 5))]
    text = "\n".join(records) if rng.random() < 0.6 else random_text(rng)
    path, shown = _written(rng, folder, name, text.encode(errors="replace"))
    config = GenerateConfig(prompts_file=str(path))
    return Case(shown, lambda: read_prompts(config, store.read_bytes))


_ODD_NUMBERS = ("nan", "inf", "1e400", "", "x", "0x1", "9" * 5000, "-0", "1_0", "٣", "true", "1e-400")


@family("embeddings")
def _embeddings(rng: Random, folder: Path) -> Case:
    kind = rng.choice(("csv", "parquet", "txt", "vec", "CSV", "Parquet", "VEC"))
    size = rng.choice((0, 1, 1, 2, 3, 4))
    tokens = [random_text(rng, 2) if rng.random() < 0.05 else f"tök{i}" for i in range(rng.choice((0, 1, 4, 6)))]
    rows = [[str(rng.uniform(-9, 9)) for _ in range(size)] for _ in tokens]
    if rows and size and rng.random() < 0.3:
        rows[rng.randrange(len(rows))][rng.randrange(size)] = rng.choice(_ODD_NUMBERS)
    if kind.lower() == "parquet":
        data = _embeddings_table(rng, tokens, size)
    elif kind.lower() == "csv":
        data = _embeddings_csv(rng, tokens, rows, size)
    else:
        first = rng.choice(
            (f"{len(tokens)} {size}",) * 5 + ("9" * 5000 + " 2", "2", "², ³", "٣ ٣", f"{len(tokens)} {10**18}")
        )
        data = "\n".join([first, *(" ".join([token, *row]) for token, row in zip(tokens, rows, strict=True))]).encode()
    path, shown = _written(rng, folder, f"e.{kind}", data)
    return Case(shown, lambda: read_embeddings(str(path)))


def _embeddings_csv(rng: Random, tokens: list[str], rows: list[list[str]], size: int) -> bytes:
    ids = [rng.choice((str(number),) * 200 + _ODD_NUMBERS) for number in range(len(tokens))]
    quoted = [rng.choice((f'"{token}"', token, token.replace('"', '""'))) for token in tokens]
    if rng.random() < 0.05:
        quoted = [token * 70_000 for token in quoted]
    lines = [",".join([token, token_id, *row]) for token, token_id, row in zip(quoted, ids, rows, strict=True)]
    return "\n".join([",".join(["token", "id", *(f"v{i}" for i in range(size))]), *lines]).encode()


def _embeddings_table(rng: Random, tokens: list[str], size: int) -> bytes:
    count = len(tokens)
    ids = rng.choice(
        (
            *[pa.array(range(count))] * 9,
            pa.array([-1] * count),
            pa.array([1.5] * count, pa.float64()),
            pa.array([float("inf")] * count, pa.float64()),
            pa.array([2**64 - 1] * count, pa.uint64()),
            pa.nulls(count),
        )
    )
    vectors = rng.choice(
        (
            *[pa.array([[1.0] * size] * count, pa.list_(pa.float32()))] * 9,
            pa.array([None] * count, pa.list_(pa.float32())),
            pa.array([["x"] * size] * count, pa.list_(pa.string())),
            pa.array([[1.0] * size] * count, pa.large_list(pa.float64())),
            pa.array([[[1.0]] * size] * count, pa.list_(pa.list_(pa.float32()))),
            pa.array(np.zeros(count)),
            pa.array(np.ones(count)),
            pa.array(tokens),
            pa.array([{"x": 1.0}] * count, pa.struct([("x", pa.float32())])),
            pa.array([{"a": "b"}] * count, pa.struct([("a", pa.string())])),
        )
    )
    names = rng.choice((["token", "id", "vector"],) * 9 + (["token", "id", "id"], ["token", "vector", "vector"]))
    sink = io.BytesIO()
    written = pa.array(tokens, pa.string())
    if rng.random() < 0.1:  # strings that are not UTF-8
        broken = pa.array([token.encode() + rng.choice((b"", b"\xff")) for token in tokens], pa.binary())
        written = pa.Array.from_buffers(pa.string(), count, broken.buffers())
    pq.write_table(pa.table([written, ids, vectors], names), sink, write_page_checksum=rng.random() < 0.5)
    return sink.getvalue()


@family("archive")
def _archive(rng: Random, folder: Path) -> Case:
    contents = {f"{name}.bin": rng.randbytes(rng.randrange(200)) for name in "abc"[: rng.randint(0, 3)]}
    entries = tuple(FileEntry.of(name, data) for name, data in contents.items())
    manifest, how = damage(rng, Manifest("model", "0" * 64, entries, {}).to_json())
    path, shown = _written(rng, folder, rng.choice(("m.zip", "M.ZIP")), pack({**contents, "_manifest.json": manifest}))
    return Case(f"manifest {how}; {shown}", lambda: unpack(path.as_uri()))
