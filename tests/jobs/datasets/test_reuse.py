"""A run inherits a tokenizer, and reuses the shards of files that have not changed since an earlier run."""

import gzip
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.cli.main import main
from jobs.datasets import encoding
from jobs.datasets.shards import TokenShard
from jobs.datasets.windows import WindowSet
from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.store import read_manifest, write_bytes
from jobs.lake.uri import join, to_uri
from tests.support.datasets import PASSAGE, Pipeline, write_corpus
from tests.support.foreign import make

TEXTS = {"a.txt": PASSAGE * 6, "b.txt": b"Two.\r\n\r\nThree.", "d.txt": PASSAGE[:900], "e.txt": PASSAGE * 3}


@pytest.fixture(params=["file", "s3"])
def lake_uri(request, tmp_path, s3_uri, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return s3_uri if request.param == "s3" else to_uri(str(tmp_path / "my läke"))


def tokenize(lake_uri, run_id, **settings):
    settings = {"tokenize__tokenizer": "inherit", **settings}
    pipeline = Pipeline(lake_uri, join(lake_uri, "corpus"), run_id, **settings)
    write_bytes(pipeline.run.config, pipeline.config.to_json().encode())
    return pipeline, pipeline.tokenize()


def shards(pipeline):
    tokens, found = pipeline.tokens, {}
    for entry in tokens.shards:
        shard = TokenShard.open(tokens.uri, entry)
        found[entry.sha256] = [name for name, _ in shard.sources]
    return found, tokens.manifest


def record_reads(monkeypatch):
    read = []
    whole = encoding.read_documents

    def spy(part, settings):
        read.append(part.source.name)
        return whole(part, settings)

    monkeypatch.setattr(encoding, "read_documents", spy)
    return read


def test_only_a_new_file_is_encoded(lake_uri, monkeypatch):
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    first, stats = tokenize(lake_uri, "first")
    assert (stats["tokenizer_from"], stats["reused_sources"], stats["new_sources"]) == ("trained", 0, 4)
    write_corpus(join(lake_uri, "corpus"), {"c é.txt": b"A new file."})
    read = record_reads(monkeypatch)
    second, stats = tokenize(lake_uri, "second")
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
    given = join(first.lake.dataset("tokens", first.datasets["tokens"]), "tokenizer.json")
    fresh = Pipeline(join(lake_uri, "other"), join(lake_uri, "corpus"), "fresh", tokenize__tokenizer=given)
    assert fresh.tokenize()["reused_sources"] == 0
    assert list(shards(fresh)[0]) == list(after)
    assert fresh.datasets == second.datasets


def test_a_file_with_another_name_and_a_copy_are_not_read_again(lake_uri, monkeypatch):
    corpus = write_corpus(join(lake_uri, "corpus"), TEXTS)
    first, _ = tokenize(lake_uri, "first")
    store.delete_file(join(corpus, "b.txt"))
    write_corpus(corpus, {"z/renamed.txt": TEXTS["b.txt"], "copy.txt": TEXTS["a.txt"]})
    read = record_reads(monkeypatch)
    second, stats = tokenize(lake_uri, "second")
    assert (read, stats["reused_sources"], stats["new_sources"]) == ([], 5, 0)
    assert stats["num_crlf_line_ends"] == 2
    given = join(first.lake.dataset("tokens", first.datasets["tokens"]), "tokenizer.json")
    fresh = Pipeline(join(lake_uri, "other"), corpus, "fresh", tokenize__tokenizer=given)
    assert fresh.tokenize()["reused_sources"] == 0
    assert list(shards(fresh)[0]) == list(shards(second)[0])
    assert fresh.tokens.files == second.tokens.files


def test_a_file_that_was_compressed_anew_is_encoded_again(tmp_path):
    """Its bytes are others, though its text is the same: where its documents lie in it is not known."""
    lake_uri, text = to_uri(str(tmp_path)), TEXTS["e.txt"]
    corpus = write_corpus(join(lake_uri, "corpus"), {"a.txt.gz": gzip.compress(text, 1), "b.txt": TEXTS["b.txt"]})
    tokenize(lake_uri, "first")
    write_corpus(corpus, {"a.txt.gz": gzip.compress(text, 9), "c.txt.gz": gzip.compress(text, 1)})
    _, stats = tokenize(lake_uri, "second")
    assert (stats["reused_sources"], stats["new_sources"]) == (2, 1)  # b.txt, and c.txt.gz with the bytes of before


def test_a_name_with_which_a_file_is_read_differently_is_another_file(tmp_path, monkeypatch):
    lake_uri = to_uri(str(tmp_path))
    data = b'{"text": "One."}\n\n{"text": "Two."}\n'
    corpus = write_corpus(join(lake_uri, "corpus"), {**TEXTS, "lines.txt": data})
    tokenize(lake_uri, "first")
    store.delete_file(join(corpus, "lines.txt"))
    write_corpus(corpus, {"lines.jsonl": data})
    read = record_reads(monkeypatch)
    second, stats = tokenize(lake_uri, "second")
    assert (set(read), stats["reused_sources"]) == ({"lines.jsonl"}, 4)
    ids = np.concatenate([TokenShard.open(second.tokens.uri, entry).ids for entry in second.tokens.shards])
    text = second.tokens.read_tokenizer().decode(ids.tolist())
    assert "One." in text
    assert '"text"' not in text


def test_a_changed_file_is_read_again(lake_uri, monkeypatch):
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    tokenize(lake_uri, "first")
    write_corpus(join(lake_uri, "corpus"), {"b.txt": b"Two.\r\n\r\nThrie."})
    read = record_reads(monkeypatch)
    _, stats = tokenize(lake_uri, "second")
    assert set(read) == {"b.txt"}
    assert stats["reused_sources"] == 3


def test_an_unchanged_corpus_reuses_the_dataset(lake_uri, monkeypatch):
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    first, _ = tokenize(lake_uri, "first")
    read = record_reads(monkeypatch)
    second, stats = tokenize(lake_uri, "second")
    assert (stats["reused"], stats["reused_sources"], stats["new_sources"]) == (True, 4, 0)
    assert second.datasets == first.datasets
    assert read == []


def test_a_trial_with_another_vocabulary_does_not_make_the_next_run_encode_all_anew(lake_uri):
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    first, _ = tokenize(lake_uri, "first", tokenize__tokenizer="train")
    given = join(first.lake.dataset("tokens", first.datasets["tokens"]), "tokenizer.json")
    _, stats = tokenize(lake_uri, "trial", tokenize__tokenizer="train", tokenize__vocab_size=300)
    assert stats["new_sources"] == 4
    write_corpus(join(lake_uri, "corpus"), {"new.txt": b"A new file."})
    _, stats = tokenize(lake_uri, "next", tokenize__tokenizer=given)
    assert (stats["reused_sources"], stats["new_sources"]) == (4, 1)


def test_other_settings_reuse_no_shard(tmp_path, monkeypatch):
    lake_uri = to_uri(str(tmp_path))
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    tokenize(lake_uri, "first")
    for number, settings in enumerate([{"documents": "line"}, {"split_bytes": 8192}, {"drop_duplicates": True}]):
        _, stats = tokenize(lake_uri, f"r{number}", **{f"tokenize__{key}": value for key, value in settings.items()})
        assert stats["reused_sources"] == 0
        assert stats["tokenizer_from"] != "trained"


def test_the_champion_comes_first(tmp_path):
    lake_uri = to_uri(str(tmp_path))
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    tokenize(lake_uri, "first")
    other, _ = tokenize(lake_uri, "second", tokenize__tokenizer="train", tokenize__vocab_size=300)
    tokenizer = other.tokens.read_tokenizer()
    write_bytes(join(other.lake.models, "abc", "tokenizer.json"), tokenizer.json)
    write_bytes(other.lake.pipeline().champion, json.dumps({"model": "abc", "run_id": "of old"}).encode())
    third, stats = tokenize(lake_uri, "third")
    assert stats["tokenizer_from"] == "champion of old"
    assert stats["vocab_size"] == tokenizer.vocab_size == 300
    assert third.datasets == other.datasets  # the same tokens as those of the run before


@pytest.mark.parametrize(
    ("init", "origin"),
    [(None, "run second"), ("champion", "champion of poems"), ("champion-or-scratch", "champion of poems")],
)
def test_a_run_without_airflow_inherits_from_the_champion_that_it_starts_from(tmp_path, init, origin):
    lake_uri = to_uri(str(tmp_path))
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    tokenize(lake_uri, "first")
    second, _ = tokenize(lake_uri, "second", tokenize__tokenizer="train", tokenize__vocab_size=300)
    write_bytes(join(second.lake.models, "abc", "tokenizer.json"), second.tokens.read_tokenizer().json)
    write_bytes(second.lake.pipeline("poems").champion, json.dumps({"model": "abc", "run_id": "of poems"}).encode())
    start = None if init is None else f"{init}:poems"
    trial = Pipeline(lake_uri, join(lake_uri, "corpus"), tokenize__tokenizer="inherit", train__init=start)
    trial.run = second.lake.run("trial", "local")
    assert trial.tokenize()["tokenizer_from"] == origin


def test_the_latest_run_on_this_corpus_counts(tmp_path):
    lake_uri = to_uri(str(tmp_path))
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    first, _ = tokenize(lake_uri, "z")
    second, _ = tokenize(lake_uri, "a", tokenize__tokenizer="train", tokenize__vocab_size=300)
    for age, pipeline in ((200, first), (100, second)):
        path = store.local_path(pipeline.run.datasets)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    write_bytes(second.lake.run("broken").config, b"{}")
    write_bytes(second.lake.run("broken").datasets, b'{"tokens": "gone"}')
    assert tokenize(lake_uri, "new")[1]["tokenizer_from"] == "run a"


def test_a_damaged_shard_is_not_reused(tmp_path):
    lake_uri = to_uri(str(tmp_path))
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    first, _ = tokenize(lake_uri, "first")
    folder = first.lake.dataset("tokens", first.datasets["tokens"])
    entry = read_manifest(folder).entries("shards/")[0]
    write_bytes(join(folder, entry.name), b"short")
    write_corpus(join(lake_uri, "corpus"), {"c.txt": b"A new file."})
    with pytest.raises(DamagedError, match="the manifest says"):
        tokenize(lake_uri, "second")


def test_an_inherited_tokenizer_that_is_slow_says_so(tmp_path, caplog):
    lake_uri, given = to_uri(str(tmp_path)), join(to_uri(str(tmp_path)), "given.json")
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    write_bytes(given, make("no pre-tokenizer"))
    for run_id, name, origin in (("first", given, given), ("second", "inherit", "run first")):
        caplog.clear()
        tokenize(lake_uri, run_id, tokenize__tokenizer=name)
        assert f"tokenize.tokenizer: {origin}: texts are encoded by the library tokenizers" in caplog.text


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_a_lake_may_have_a_name_that_is_not_utf_8(tmp_path):
    lake_uri = Path(os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9")).as_uri()
    write_corpus(join(lake_uri, "corpus"), TEXTS)
    pipeline, _ = tokenize(lake_uri, "first", tokenize__tokenizer="train")
    assert pipeline.windows()["num_train_windows"] > 0
    windows = WindowSet.open(pipeline.lake, pipeline.datasets["windows"], "train")
    assert windows.read(np.arange(2)).shape == (2, windows.size + 1)


def test_remarks_on_a_given_tokenizer_are_said_once_in_a_run(tmp_path, caplog, capsys):
    write_corpus(join(to_uri(str(tmp_path)), "corpus"), TEXTS)
    (tmp_path / "given.json").write_bytes(make("words with call-time settings"))
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "word " * 400}))
    remarks = ("call-time settings are not part of", "more slowly", "1 of 1 prompts do not fit the context")
    few = {
        "tokenize.tokenizer": tmp_path / "given.json", "generate.prompts_file": tmp_path / "long.jsonl",
        "train.max_tokens": 500, "train.batch_size": 4, "train.eval_windows": 4, "train.workers": 1, "windows.size": 8,
        "model.num_layers": 1, "generate.num_samples": 1, "generate.max_new_words": 1,
    }  # fmt: skip
    options = [part for key, value in few.items() for part in ("--set", f"{key}={value}")]
    options += ["--corpus", str(tmp_path / "corpus"), "--lake", str(tmp_path / "lake"), "--preset", "tiny"]
    for steps in (["run"], ["tokenize", "windows"]):
        caplog.clear()
        for step in steps:
            assert main([step, "--engine", "inline", "--run-id", steps[0], *options]) == 0, capsys.readouterr().err
        assert [caplog.text.count(remark) for remark in remarks] == [1, 1, 1]
