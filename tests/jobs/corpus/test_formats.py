"""The same text gives the same tokens and windows in any format and lake, on any engine, in any number of splits."""

import gzip
import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.config import SparkConfig
from jobs.datasets.shards import TokenShard
from jobs.datasets.windows import SIDES, WindowSet, num_windows
from jobs.engine import spark as spark_engine
from jobs.engine.inline import InlineEngine
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import join, to_uri
from jobs.pipeline import read_config, start_run
from jobs.steps import tokenize, windows
from tests.support.datasets import PASSAGE

PARAGRAPHS = [
    f"{number}. {text}" for number in range(1350) for text in PASSAGE.decode().strip().split("\n\n") if text.strip()
]
TEXT = "\n\n".join(PARAGRAPHS).encode()
SETTINGS = {"tokenize.vocab_size": 1000, "windows.overlap": 7, "windows.size": 15}


@pytest.fixture(scope="module")
def spark(s3_server):
    """An engine whose workers use the S3 server, even if other tests started the JVM before the server."""
    with pytest.MonkeyPatch.context() as patch:  # as the engine does before it starts a session itself
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        known = {**spark_engine.SETTINGS, "spark.executorEnv.AWS_ENDPOINT_URL": s3_server, "spark.ui.enabled": "false"}
        SparkSession.builder.master("local[2,4]").config(map=known).getOrCreate()
        engine = spark_engine.SparkEngine(SparkConfig(), master="local[2,4]")
        yield engine
        engine.stop()


def as_table(texts):
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), sink, row_group_size=len(texts) // 7)
    return sink.getvalue()


FORMATS = {
    "txt": lambda: TEXT,
    "txt.gz": lambda: gzip.compress(TEXT, 1),
    "txt.zst": lambda: pa.compress(TEXT, "zstd", asbytes=True),
    "jsonl": lambda: "\n".join(json.dumps({"text": text}) for text in PARAGRAPHS).encode(),
    "parquet": lambda: as_table(PARAGRAPHS),
}


def make(lake_uri, suffix, engine, num_parts):
    """Run both steps; return all tokens, the numbers of windows, and the statistics that must be equal."""
    corpus = join(lake_uri, "a côrpus", f"the text.{suffix}")
    if not store.exists(corpus):
        store.write_bytes(corpus, FORMATS[suffix]())
    lake = Lake(join(lake_uri, f"läke {engine.name} {suffix} {num_parts}"))
    split_bytes = -(-store.info(corpus).size // num_parts)
    run = start_run(lake.run("r"), corpus, "tiny", {**SETTINGS, "tokenize.split_bytes": max(4096, split_bytes)})
    config = read_config(run)
    stats = tokenize.run(run, config, engine, lambda line: None) | windows.run(run, config, engine, lambda line: None)
    names = store.read_json(run.datasets)
    folder = lake.dataset("tokens", names["tokens"])
    manifest = store.read_manifest(folder)
    ids = np.concatenate([TokenShard.open(folder, entry).ids for entry in manifest.entries("shards/")])
    counts = [WindowSet.open(lake, names["windows"], side).num_windows for side in SIDES]
    assert counts == [num_windows(stats[f"{side}_tokens"], 15, 8) for side in SIDES]
    return ids, counts, stats["num_documents"], stats["num_bytes"], len(manifest.entries("shards/"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return make(to_uri(str(tmp_path_factory.mktemp("plain text"))), "txt", InlineEngine(), 1)


@pytest.fixture
def lake_uri(request, tmp_path, s3_uri, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return s3_uri if request.param == "s3" else to_uri(str(tmp_path))


def test_the_text_is_long(expected):
    assert len(TEXT) > 5_000_000
    assert expected[2:4] == (len(PARAGRAPHS), sum(len(text.strip().encode()) for text in PARAGRAPHS))


@pytest.mark.parametrize("lake_uri", ["file", "s3"], indirect=True)
@pytest.mark.parametrize("suffix", FORMATS)
def test_any_format_and_lake(expected, lake_uri, suffix):
    same(make(lake_uri, suffix, InlineEngine(), 2), expected)


@pytest.mark.parametrize("lake_uri", ["file"], indirect=True)
@pytest.mark.parametrize(("suffix", "num_parts"), [("txt", 1), ("parquet", 2), ("jsonl", 5)])
def test_any_number_of_splits_on_spark(expected, lake_uri, spark, suffix, num_parts):
    found = make(lake_uri, suffix, spark, num_parts)
    same(found, expected)
    assert found[4] >= num_parts


@pytest.mark.parametrize("lake_uri", ["s3"], indirect=True)
def test_spark_on_s3(expected, lake_uri, spark):
    same(make(lake_uri, "txt.gz", spark, 2), expected)


def same(found, expected):
    assert np.array_equal(found[0], expected[0])
    assert found[1:4] == expected[1:4]
