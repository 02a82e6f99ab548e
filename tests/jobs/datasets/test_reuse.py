"""A run inherits a tokenizer, and reuses the shards of files that have not changed since an earlier run."""

import json
import os

import pytest

from jobs.datasets import encoding
from jobs.datasets.shards import TokenShard
from jobs.datasets.tokens import read_tokenizer
from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.store import read_manifest, write_bytes
from jobs.lake.uri import join, to_uri
from tests.support.datasets import PASSAGE, Pipeline, write_corpus

TEXTS = {"a.txt": PASSAGE * 6, "b.txt": b"Two.\r\n\r\nThree.", "d.txt": PASSAGE[:900], "e.txt": PASSAGE * 3}


@pytest.fixture(params=["file", "s3"])
def place(request, tmp_path, s3_uri, monkeypatch):
    monkeypatch.setattr(store.tempfile, "tempdir", str(tmp_path))
    return s3_uri if request.param == "s3" else to_uri(str(tmp_path / "my läke"))


def night(place, run_id, **settings):
    settings = {"tokenize__tokenizer": "inherit", **settings}
    pipeline = Pipeline(place, join(place, "corpus"), run_id, **settings)
    write_bytes(pipeline.run.config, pipeline.config.to_json().encode())
    return pipeline, pipeline.tokenize()


def shards(pipeline):
    folder = pipeline.lake.tokens(pipeline.datasets["tokens"])
    manifest = read_manifest(folder)
    found = {}
    for entry in manifest.entries("shards/"):
        shard = TokenShard.open(folder, entry)
        found[entry.sha256] = [name for name, _ in shard.sources]
    return found, manifest


def record_reads(monkeypatch):
    read = []
    whole = encoding.read_documents

    def spy(part, settings):
        read.append(part.source.name)
        return whole(part, settings)

    monkeypatch.setattr(encoding, "read_documents", spy)
    return read


def test_only_a_new_file_is_encoded(place, monkeypatch):
    write_corpus(join(place, "corpus"), TEXTS)
    first, stats = night(place, "first")
    assert (stats["tokenizer_from"], stats["reused_sources"], stats["new_sources"]) == ("trained", 0, 4)
    write_corpus(join(place, "corpus"), {"c é.txt": b"A new file."})
    read = record_reads(monkeypatch)
    second, stats = night(place, "second")
    assert set(read) == {"c é.txt"}
    assert (stats["tokenizer_from"], stats["reused_sources"], stats["new_sources"]) == ("run first", 4, 1)
    assert stats["num_crlf_line_ends"] == 2
    before, _ = shards(first)
    after, manifest = shards(second)
    assert manifest.inputs["reused_sources"] == sorted(TEXTS)
    kept = [sha256 for sha256, names in before.items() if names in (["a.txt"], ["e.txt"])]
    assert len(kept) > 4
    assert set(kept) <= set(after)
    assert {sha256 for sha256 in after if sha256 not in before} == {
        sha256 for sha256, names in after.items() if "c é.txt" in names
    }
    # Reused shards equal new ones.
    given = join(first.lake.tokens(first.datasets["tokens"]), "tokenizer.json")
    fresh = Pipeline(join(place, "other"), join(place, "corpus"), "fresh", tokenize__tokenizer=given)
    assert fresh.tokenize()["reused_sources"] == 0
    assert list(shards(fresh)[0]) == list(after)
    assert fresh.datasets == second.datasets


def test_a_changed_file_is_read_again(place, monkeypatch):
    write_corpus(join(place, "corpus"), TEXTS)
    night(place, "first")
    write_corpus(join(place, "corpus"), {"b.txt": b"Two.\r\n\r\nThrie."})
    read = record_reads(monkeypatch)
    _, stats = night(place, "second")
    assert set(read) == {"b.txt"}
    assert stats["reused_sources"] == 3


def test_an_unchanged_corpus_reuses_the_dataset(place, monkeypatch):
    write_corpus(join(place, "corpus"), TEXTS)
    first, _ = night(place, "first")
    read = record_reads(monkeypatch)
    second, stats = night(place, "second")
    assert (stats["reused"], stats["reused_sources"], stats["new_sources"]) == (True, 4, 0)
    assert second.datasets == first.datasets
    assert read == []


def test_other_settings_reuse_no_shard(tmp_path, monkeypatch):
    place = to_uri(str(tmp_path))
    write_corpus(join(place, "corpus"), TEXTS)
    night(place, "first")
    for number, settings in enumerate([{"documents": "line"}, {"split_bytes": 8192}, {"drop_duplicates": True}]):
        _, stats = night(place, f"r{number}", **{f"tokenize__{key}": value for key, value in settings.items()})
        assert stats["reused_sources"] == 0
        assert stats["tokenizer_from"] != "trained"


def test_the_champion_comes_first(tmp_path):
    place = to_uri(str(tmp_path))
    write_corpus(join(place, "corpus"), TEXTS)
    night(place, "first")
    other, _ = night(place, "second", tokenize__tokenizer="train", tokenize__vocab_size=300)
    tokenizer = read_tokenizer(other.lake, other.datasets["tokens"])
    write_bytes(join(other.lake.models, "abc", "tokenizer.json"), tokenizer.json)
    write_bytes(other.lake.champion, json.dumps({"model": "abc", "run_id": "of old"}).encode())
    third, stats = night(place, "third")
    assert stats["tokenizer_from"] == "champion of old"
    assert stats["vocab_size"] == tokenizer.vocab_size == 300
    assert third.datasets == other.datasets  # the same tokens as those of the run before


def test_the_latest_run_on_this_corpus_counts(tmp_path):
    place = to_uri(str(tmp_path))
    write_corpus(join(place, "corpus"), TEXTS)
    first, _ = night(place, "z")
    second, _ = night(place, "a", tokenize__tokenizer="train", tokenize__vocab_size=300)
    for age, pipeline in ((200, first), (100, second)):
        path = store.local_path(pipeline.run.datasets)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    write_bytes(second.lake.run("broken").config, b"{}")
    write_bytes(second.lake.run("broken").datasets, b'{"tokens": "gone"}')
    assert night(place, "new")[1]["tokenizer_from"] == "run a"


def test_a_damaged_shard_is_not_reused(tmp_path):
    place = to_uri(str(tmp_path))
    write_corpus(join(place, "corpus"), TEXTS)
    first, _ = night(place, "first")
    folder = first.lake.tokens(first.datasets["tokens"])
    entry = read_manifest(folder).entries("shards/")[0]
    write_bytes(join(folder, entry.name), b"short")
    write_corpus(join(place, "corpus"), {"c.txt": b"A new file."})
    with pytest.raises(DamagedError, match="the manifest says"):
        night(place, "second")
