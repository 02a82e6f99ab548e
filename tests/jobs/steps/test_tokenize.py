"""The tokenize step on real text, on a local disk and on S3."""

import gzip
import json
import logging

import numpy as np
import pytest
import tokenizers

from jobs.datasets import publish
from jobs.datasets.shards import TokenShard
from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.cache import verified_file
from jobs.lake.store import list_files, read_manifest, verify_sizes, write_bytes
from jobs.lake.uri import join, to_uri
from jobs.tokenizer import train
from tests.support.datasets import PASSAGE, PASSAGE_PATH, Pipeline, write_corpus
from tests.support.foreign import make

TEXTS = {
    "a.txt": PASSAGE * 6,
    "b é.txt": b"\xef\xbb\xbfOne.\r\nTwo.\r\n \t\r\nThree <|endoftext|> four.\r\n",
    "blank.txt": b" \n\n\t\r\n",
    "empty.txt": b"",
    "sub/c.txt": "漢字 😀\n\n\n\n".encode() * 50,
}


def read_all(pipeline):
    """Return the manifest, and source, offset, bytes and ids of each document."""
    tokens, rows = pipeline.tokens, []
    for entry in tokens.shards:
        shard = TokenShard.open(tokens.uri, entry)
        names = [shard.sources[i][0] for i in shard.source]
        ids = [part.tolist() for part in np.split(shard.ids, shard.ends[:-1])]
        rows += zip(names, shard.offset.tolist(), shard.num_bytes.tolist(), ids, strict=True)
    return tokens.manifest, rows


def test_the_lake_and_other_files_are_left_out_and_named(anywhere):
    corpus = write_corpus(join(anywhere, "texts"), {"a.txt": PASSAGE, "cover.png": b"", "_notes/b.txt": PASSAGE})
    first = Pipeline(join(corpus, "lake"), corpus)
    before = first.tokenize()
    write_bytes(join(first.run.generate, "generated.txt"), b"Text of a model.")
    second = Pipeline(join(corpus, "lake"), corpus, "second")
    stats = second.tokenize()
    assert (stats["num_files"], stats["reused"]) == (1, True)
    assert before["num_left_out_files"] >= 2
    assert {name.partition("/")[0] for name in before["first_left_out_files"]} >= {"_notes", "cover.png"}
    assert stats["num_left_out_files"] >= 3
    assert any("left out" in line and "cover.png" in line for line in first.lines)


def test_what_a_user_may_not_expect_is_said(tmp_path):
    texts = {"a.txt.gz": gzip.compress(PASSAGE) + b"rest", "b.txt": b"<!DOCTYPE html>\n<p>Text</p>\n"}
    texts["c.txt"] = PASSAGE + b"torn\0\0\0 off\n"
    pipeline = Pipeline((tmp_path / "lake").as_uri(), write_corpus((tmp_path / "texts").as_uri(), texts))
    stats = pipeline.tokenize()
    assert (stats["num_ignored_bytes"], stats["num_markup_files"]) == (4, 1)
    assert "corpus: 3 bytes of the text are NUL, which text files do not have; a file may be damaged or binary" in (
        pipeline.lines
    )
    assert "corpus: 4 bytes after the end of compressed data were ignored" in pipeline.lines
    assert "corpus: 1 files begin as HTML or XML, and their tags are part of the text" in pipeline.lines


@pytest.mark.parametrize("line_end", [b"\r", b"\r\n"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_line_ends_do_not_change_tokens(tmp_path, line_end, name):
    made = {}
    for end in (b"\n", line_end):
        text = PASSAGE.replace(b"\n", end)
        folder = write_corpus((tmp_path / repr(end)).as_uri(), {name: gzip.compress(text) if "gz" in name else text})
        pipeline = Pipeline((tmp_path / f"lake {end!r}").as_uri(), folder)
        stats, (_, rows) = pipeline.tokenize(), read_all(pipeline)
        made[end] = [ids for *_, ids in rows]
    assert made[b"\n"] == made[line_end]
    num_lines = PASSAGE.count(b"\n")
    counts = (stats["num_cr_line_ends"], stats["num_crlf_line_ends"])
    assert counts == ((num_lines, 0) if line_end == b"\r" else (0, num_lines))


def test_tokens_of_a_folder(anywhere):
    corpus = write_corpus(join(anywhere, "corpus"), TEXTS)
    pipeline = Pipeline(anywhere, corpus)
    stats = pipeline.tokenize()
    manifest, rows = read_all(pipeline)
    paragraphs = [text.strip() for text in PASSAGE.decode().strip().split("\n\n")] * 6
    texts = [*paragraphs, "One.\nTwo.", "Three <|endoftext|> four.", *["漢字 😀"] * 50]
    tokenizer = pipeline.tokens.read_tokenizer()
    reference = tokenizers.Tokenizer.from_str(tokenizer.json.decode())
    assert [ids for *_, ids in rows] == [[*reference.encode(text).ids, 256] for text in texts]
    assert [num_bytes for _, _, num_bytes, _ in rows] == [len(text.encode()) for text in texts]
    for name, offset, _, ids in rows:
        assert TEXTS[name][offset:].startswith(tokenizer.decode(ids[:-1]).split("\n")[0].encode())
    assert [name for name, *_ in rows] == sorted(name for name, *_ in rows)
    assert {key: stats[key] for key in ("num_files", "num_documents", "num_empty_documents", "num_bytes")} == {
        "num_files": 5,
        "num_documents": len(texts),
        "num_empty_documents": 2,
        "num_bytes": sum(len(text.encode()) for text in texts),
    }
    lengths = [len(ids) for *_, ids in rows]
    assert stats["num_tokens"] == sum(lengths)
    assert stats["tokens_per_document_max"] == max(lengths)
    assert stats["tokens_per_document_p50"] == int(np.percentile(lengths, 50, method="inverted_cdf"))
    assert 1 < stats["bytes_per_token"] < 5
    assert stats["vocab_size"] == tokenizer.vocab_size == 400
    assert manifest.counts.items() <= stats.items()
    assert [entry["name"] for entry in manifest.inputs["files"]] == sorted(TEXTS)
    assert json.dumps(stats)
    assert len(manifest.entries("shards/")) > 4


def test_an_existing_dataset_is_reused(anywhere, monkeypatch):
    corpus = write_corpus(join(anywhere, "corpus"), TEXTS)
    first = Pipeline(anywhere, corpus)
    stats = first.tokenize()
    assert not stats["reused"]
    before = list_files(join(anywhere, "datasets"))
    second = Pipeline(anywhere, corpus, "second")
    monkeypatch.setattr(train, "train_bpe", None)
    again = second.tokenize()
    assert again["reused"]
    assert (again["reused_sources"], again["new_sources"]) == (5, 0)
    assert {**again, "reused": False, "reused_sources": 0, "new_sources": 5}.items() <= stats.items()
    assert second.datasets == first.datasets
    assert list_files(join(anywhere, "datasets")) == before
    assert "5 files reused, 0 new" in second.lines[-1]


def test_a_dataset_that_another_attempt_published_is_a_success(anywhere, monkeypatch):
    """The second attempt finds no dataset at first, and one when it publishes."""
    corpus = write_corpus(join(anywhere, "corpus"), TEXTS)
    Pipeline(anywhere, corpus).tokenize()
    monkeypatch.setattr(publish, "find_stats", lambda folder_uri: None)
    pipeline = Pipeline(anywhere, corpus, "second")
    assert not pipeline.tokenize()["reused"]
    folder = pipeline.lake.dataset("tokens", pipeline.datasets["tokens"])
    manifest = read_manifest(folder)
    verify_sizes(folder, manifest)
    assert all(verified_file(folder, entry) for entry in manifest.files)


def test_the_fingerprint_depends_on_settings_and_text(local):
    corpus = write_corpus(join(local, "corpus"), {"a.txt": PASSAGE})
    variants = [{}, {"tokenize__vocab_size": 401}, {"tokenize__documents": "line"}, {"tokenize__train_bytes": 1024}]
    names = []
    for settings in [*variants, {"train__seed": 9}]:
        pipeline = Pipeline(local, corpus, **settings)
        pipeline.tokenize()
        names.append(pipeline.datasets["tokens"])
    write_corpus(corpus, {"a.txt": PASSAGE.replace(b"Watson", b"watson")})
    pipeline = Pipeline(local, corpus)
    pipeline.tokenize()
    assert len({*names, pipeline.datasets["tokens"]}) == 5
    assert names[0] == names[4]


@pytest.mark.parametrize("documents", ["paragraph", "line", "file"])
def test_documents_do_not_depend_on_splits(local, documents):
    corpus = write_corpus(join(local, "corpus"), TEXTS)
    found = []
    for split_bytes in (4096, 1 << 20):
        settings = {"tokenize__documents": documents, "tokenize__split_bytes": split_bytes}
        pipeline = Pipeline(local, corpus, **settings)
        stats = pipeline.tokenize()
        found.append(
            (read_all(pipeline)[1], {**stats, "reused": 0, **dict.fromkeys(k for k in stats if "second" in k)})
        )
    assert found[0] == found[1]
    lines = sum(data.count(b"\n") for data in TEXTS.values())
    empty = {"paragraph": 2, "line": lines - stats["num_documents"], "file": 2}
    assert stats["num_empty_documents"] == empty[documents]


def test_a_given_tokenizer_that_truncates_and_pads(tmp_path, caplog):
    """Truncation and padding belong to calls of the library. A run ignores them, and says so once."""
    lake_uri, given = to_uri(str(tmp_path)), tmp_path / "given.json"
    given.write_bytes(make("words with call-time settings"))
    corpus = write_corpus(join(lake_uri, "corpus"), {"a.txt": PASSAGE})
    pipeline = Pipeline(lake_uri, corpus, tokenize__tokenizer=str(given))
    with caplog.at_level("WARNING", "jobs"):  # a command of an earlier test may have set another level
        stats = pipeline.tokenize()
    # Not by the level's name, which a command of an earlier test may have changed.
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["call-time settings" in warning for warning in warnings] == [True, False]
    assert all("given.json: " in warning for warning in warnings)
    tokenizer = pipeline.tokens.read_tokenizer()
    reference = tokenizers.Tokenizer.from_str(tokenizer.json.decode())
    texts = [text.strip() for text in PASSAGE.decode().split("\n\n") if text.strip()]
    assert stats["num_tokens"] == sum(len(reference.encode(text).ids) + 1 for text in texts) > 4 * len(texts)
    assert not any("call-time" in remark for remark in tokenizer.remarks())


def test_given_tokenizer(anywhere):
    corpus = write_corpus(join(anywhere, "corpus"), {"a.txt": PASSAGE})
    first = Pipeline(anywhere, corpus)
    first.tokenize()
    given = join(first.lake.dataset("tokens", first.datasets["tokens"]), "tokenizer.json")
    second = Pipeline(
        anywhere, write_corpus(join(anywhere, "other"), {"b.txt": b"Other text."}), tokenize__tokenizer=given
    )
    assert second.tokenize()["vocab_size"] == 400
    tokenizer = first.tokens.read_tokenizer()
    assert read_all(second)[1] == [("b.txt", 0, 11, [*tokenizer.encode("Other text."), 256])]


@pytest.mark.parametrize(
    ("texts", "settings", "reason"),
    [
        ({}, {}, "no file there"),
        ({"a.md": PASSAGE}, {}, r"named \*\.txt"),
        ({"a.txt": b"", "b.txt": b" \n\n"}, {}, "no text in its 2 files"),
        ({"a.txt": PASSAGE, "b.txt": b"x" * 5000 + b"\xff"}, {}, r"/b\.txt: not UTF-8 at byte 5000 \(0xff\)"),
        ({"a.txt": PASSAGE}, {"tokenize__tokenizer": "/nowhere/é.json"}, r"%C3%A9\.json cannot be read"),
        ({"a.txt": PASSAGE}, {"tokenize__tokenizer": str(PASSAGE_PATH)}, r"scandal\.txt: not a tokenizer\.json"),
        ({"a.txt": PASSAGE}, {"tokenize__min_document_bytes": 10**6}, "removed every document"),
        (
            {"a.txt": gzip.compress(PASSAGE)},
            {"tokenize__invalid_utf8": "replace"},
            r"a\.txt: its content is gzip, not text",
        ),
    ],
)
def test_wrong_input_publishes_nothing(anywhere, texts, settings, reason):
    pipeline = Pipeline(anywhere, write_corpus(join(anywhere, "corpus"), texts), **settings)
    with pytest.raises(InputError, match=reason) as caught:
        pipeline.tokenize()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert list_files(join(anywhere, "datasets")) == []
    assert not store.exists(pipeline.run.datasets)


def test_a_damaged_dataset_is_refused(anywhere):
    pipeline = Pipeline(anywhere, write_corpus(join(anywhere, "corpus"), {"a.txt": PASSAGE}))
    pipeline.tokenize()
    manifest, _ = read_all(pipeline)
    shard = join(pipeline.lake.dataset("tokens", pipeline.datasets["tokens"]), manifest.entries("shards/")[0].name)
    write_bytes(shard, b"short")
    with pytest.raises(DamagedError, match="the manifest says"):
        pipeline.tokenize()


def test_other_tokens_remove_the_windows_of_a_run(local):
    corpus = write_corpus(join(local, "corpus"), {"a.txt": PASSAGE})
    first = Pipeline(local, corpus)
    first.tokenize()
    first.windows()
    first.tokenize()
    assert set(first.datasets) == {"tokens", "windows"}
    Pipeline(local, corpus, tokenize__vocab_size=300).tokenize()
    assert set(first.datasets) == {"tokens"}
