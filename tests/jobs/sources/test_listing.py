"""The files of a corpus, on a local disk and on S3."""

import json
import os
from functools import cache

import boto3
import pytest

from jobs.errors import InputError
from jobs.lake.store import Store, write_bytes
from jobs.lake.uri import base_name, join, to_uri
from jobs.sources.listing import Source, list_sources
from tests.support.datasets import PASSAGE, Pipeline


@pytest.fixture(params=["file", "s3"])
def folder(request, tmp_path, s3_uri):
    return s3_uri if request.param == "s3" else to_uri(str(tmp_path / "my cörpus"))


def test_folder_is_listed_by_name(folder):
    names = ["b.txt", "a/z é.txt", "a.txt", "a b/c.txt", "é.txt", "Z.txt"]
    for name in [*names, ".hidden.txt", "_SUCCESS", "_temporary/x.txt", "a/.git/x.txt", "notes.md"]:
        write_bytes(join(folder, name), name.encode())
    assert [(source.name, source.size) for source in list_sources(folder)] == [
        (name, len(name.encode())) for name in sorted(names)
    ]
    (source,) = list_sources(join(folder, "notes.md"))
    assert (source.name, source.size) == ("notes.md", 8)


def test_patterns_and_lists(folder):
    for name in ["a.txt", "b.jsonl.gz", "sub/c.txt", "sub/deep/d.parquet", "sub/.e.txt", "notes [1].md"]:
        write_bytes(join(folder, name), name.encode())
    listed = {
        f"{folder}/*.txt": ["a.txt"],
        f"{folder}/**/*.txt": ["a.txt", "sub/c.txt"],
        f"{folder}/sub/**": ["c.txt", "deep/d.parquet"],
        f"{folder}/[ab].*": ["a.txt", "b.jsonl.gz"],
        f"{folder}/?.txt\n{folder}/sub": ["a.txt", "sub/c.txt", "sub/deep/d.parquet"],
        json.dumps([join(folder, "sub"), join(folder, "a.txt")]): ["a.txt", "sub/c.txt", "sub/deep/d.parquet"],
        join(folder, "notes [1].md"): ["notes [1].md"],
        folder: ["a.txt", "b.jsonl.gz", "sub/c.txt", "sub/deep/d.parquet"],
    }
    for corpus, names in listed.items():
        found = [source.name.removeprefix(f"{base_name(folder)}/") for source in list_sources(corpus)]
        assert found == names, corpus
    formats = {source.name: (source.format, source.compression) for source in list_sources(folder)}
    assert formats["b.jsonl.gz"] == ("jsonl", "gz")
    assert formats["sub/deep/d.parquet"] == ("parquet", None)
    assert Source("OLD.JSONL.GZ", "", 0).compression == "gz"
    with pytest.raises(InputError, match="matches this pattern"):
        list_sources(f"{folder}/*.csv")
    write_bytes(join(folder, "other/sub/c.txt"), b"another")
    with pytest.raises(InputError, match=r"both are named sub/c\.txt"):
        list_sources(f"{join(folder, 'sub')}\n{join(folder, 'other/sub')}")


def test_a_corpus_without_text_is_refused(folder):
    with pytest.raises(InputError, match="no file there"):
        list_sources(folder)
    write_bytes(join(folder, "notes.md"), b"x")
    with pytest.raises(InputError, match=r"none of its 1 files is named \*\.txt"):
        list_sources(folder)


def test_a_pattern_below_a_file_is_refused(folder):
    write_bytes(join(folder, "a.txt"), b"x")
    with pytest.raises(InputError, match=r"cannot be read|no file there"):
        list_sources(join(folder, "a.txt/*.txt"))


def test_a_missing_bucket_is_refused(s3_server):
    with pytest.raises(InputError, match=r"s3://no-such-bucket/text: cannot be read .*NoSuchBucket"):
        list_sources("s3://no-such-bucket/text")


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_refused(tmp_path):
    (tmp_path / "a").mkdir(mode=0)
    with pytest.raises(InputError, match="Permission denied"):
        list_sources(tmp_path.as_uri())


def test_the_caller_chooses_endpoint_and_credentials(s3_uri, s3_server, monkeypatch):
    write_bytes(join(s3_uri, "a.txt"), b"text")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    store = Store(cache(lambda: boto3.client("s3", endpoint_url=s3_server)))
    assert [source.name for source in list_sources(s3_uri, store)] == ["a.txt"]


@pytest.mark.parametrize("names", [["a//b.txt", "/c.txt"], ["a#1.txt", "a?.txt", "a%41.txt", "a b.txt"]])
def test_odd_keys_are_listed(s3_uri, names):
    for name in names:
        write_bytes(f"{s3_uri}/{name}", name.encode())
    assert [(source.name, source.uri) for source in list_sources(s3_uri)] == [
        (name, f"{s3_uri}/{name}") for name in sorted(names)
    ]


def test_files_with_any_name_become_windows(tmp_path):
    folder = tmp_path / os.fsdecode(b"corpus caf\xe9")
    folder.mkdir()
    names = [b"\xff.txt", b"a#1.txt", b"a%41.txt", b"a?b.txt", b"a b.txt"]
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(PASSAGE)
    pipeline = Pipeline((tmp_path / "lake").as_uri(), folder.as_uri(), windows__split="source")
    assert pipeline.tokenize()["num_files"] == len(names)
    assert pipeline.windows()["num_train_windows"] > 0
