"""Filters drop and change documents, count them, and do not depend on how files are divided."""

import gzip
import json

import pytest

from jobs.config import TokenizeConfig
from jobs.corpus.texts import Texts
from jobs.errors import InputError
from jobs.lake.uri import join, to_uri
from tests.jobs.corpus.test_records import put, read
from tests.support.datasets import Pipeline, write_corpus

BOOK = b"""\xef\xbb\xbfThe Project Gutenberg eBook of Nothing

This eBook is for the use of anyone.

*** START OF THE PROJECT GUTENBERG EBOOK NOTHING ***
By Nobody

First.

Last.

End of the Project Gutenberg EBook of Nothing

*** END OF THE PROJECT GUTENBERG EBOOK NOTHING ***

Licence.
"""
BODY = [b"By Nobody", b"First.", b"Last."]


@pytest.mark.parametrize("split_bytes", [10, 60, 4096])
def test_headers_and_footers_are_dropped(tmp_path, split_bytes, monkeypatch):
    monkeypatch.setattr("jobs.corpus.content.BLOCK_BYTES", 16)
    record = json.dumps({"text": BOOK.decode("utf-8-sig")}).encode()
    for name, data in {"a.txt": BOOK, "a.txt.gz": gzip.compress(BOOK), "a.jsonl": record}.items():
        pipeline = Pipeline(to_uri(str(tmp_path)), write_corpus(to_uri(str(tmp_path / name)), {name: data}),
                            tokenize__drop_gutenberg=True)  # fmt: skip
        stats = pipeline.tokenize()
        assert (stats["num_documents"], stats["num_bytes"]) == (3, sum(map(len, BODY))), name
        assert stats["num_gutenberg_documents"] > 0
        assert stats["num_unmarked_texts"] == 0


def test_filtered_documents_are_counted(tmp_path):
    text = "e\u0301\n\nab\n\nabcdef\n\né\n\nabcd"
    source = put(tmp_path, "a.txt", text.encode())
    texts, counts = read(source, normalize_nfc=True, min_document_bytes=2, max_document_bytes=5)
    assert texts == ["é".encode(), b"ab", "é".encode(), b"abcd"]
    assert (counts["normalized_documents"], counts["too_short_documents"], counts["too_long_documents"]) == (1, 0, 1)
    assert read(source)[0] == text.encode().split(b"\n\n")
    assert TokenizeConfig().max_document_bytes is None


@pytest.mark.parametrize("num_in_bucket", [1 << 24, 7])
@pytest.mark.parametrize("split_bytes", [4096, 1 << 20])
def test_the_first_of_equal_documents_is_kept(tmp_path, monkeypatch, num_in_bucket, split_bytes):
    monkeypatch.setattr("jobs.corpus.duplicates.BUCKET_KEYS", num_in_bucket)
    lake_uri = to_uri(str(tmp_path))
    lines = [f"paragraph number {number % 300}" for number in range(900)]
    corpus = write_corpus(
        join(lake_uri, "corpus"), {"a.txt": "\n\n".join(lines).encode(), "b.txt": b"once\n\nparagraph number 7"}
    )
    pipeline = Pipeline(lake_uri, corpus, tokenize__drop_duplicates=True, tokenize__split_bytes=split_bytes)
    stats = pipeline.tokenize()
    assert (stats["num_documents"], stats["num_duplicate_documents"]) == (301, 601)
    assert stats["num_bytes"] == sum(map(len, {*lines, "once"}))
    assert not list(tmp_path.rglob("*.npy"))
    assert Texts.of([b"a", b"a"]).hashes()[1] == Texts.of([b"a"]).hashes()[0]


def test_filters_that_drop_every_document_are_an_error(tmp_path):
    lake_uri = to_uri(str(tmp_path))
    pipeline = Pipeline(
        lake_uri, write_corpus(join(lake_uri, "corpus"), {"a.txt": b"short"}), tokenize__min_document_bytes=99
    )
    with pytest.raises(InputError, match="removed every document"):
        pipeline.tokenize()
