"""The files of a corpus, on a local disk and on S3."""

import json
import os
import socket
from functools import cache
from pathlib import Path

import boto3
import pytest

from jobs.errors import InputError
from jobs.lake.store import Store, write_bytes
from jobs.lake.uri import base_name, join, to_uri
from jobs.sources.listing import Source, list_corpus, list_sources
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
    found = list_sources(f"{join(folder, 'sub')}\n{join(folder, 'other/sub')}")
    here = base_name(folder)
    assert [source.name for source in found] == sorted(
        [f"{here}/sub/c.txt", f"{here}/sub/deep/d.parquet", "other/sub/c.txt"]
    )


def test_the_layout_of_the_hub(folder):
    """Two datasets of the Hub have files of the same names."""
    for part in ("one/en", "one/de", "two/de"):
        for number in range(2):
            write_bytes(join(folder, part, f"data/train-0000{number}-of-00002.parquet"), part.encode())
    places = [join(folder, "one/en/data"), f"{join(folder, 'one/de')}/*/*.parquet", join(folder, "two/de")]
    found = list_sources("\n".join(places))
    assert sorted({source.name.rpartition("/")[0] for source in found}) == ["data", "one/de/data", "two/de/data"]
    assert len({source.name for source in found}) == len(found) == 6
    files = [join(folder, part, "data/train-00000-of-00002.parquet") for part in ("one/en", "one/de", "two/de")]
    assert [source.name for source in list_sources("\n".join(files))] == [
        "en/data/train-00000-of-00002.parquet",
        "one/de/data/train-00000-of-00002.parquet",
        "two/de/data/train-00000-of-00002.parquet",
    ]


def test_places_that_exist_are_no_patterns(folder):
    for name in ["data [v1]/a.txt", "data v/b.txt", "what?/c.txt", "[ab].txt", "a.txt"]:
        write_bytes(join(folder, name), name.encode())
    assert names_of(join(folder, "data [v1]")) == ["a.txt"]
    assert names_of(join(folder, "data [v1]/*.txt")) == ["a.txt"]
    assert names_of(join(folder, "what?")) == ["c.txt"]
    assert names_of(join(folder, "[ab].txt")) == ["[ab].txt"]
    assert names_of(join(folder, "data [vw]/*")) == ["data v/b.txt"]
    for pattern in ["[z-a]/*", "[z-a].txt", "[]", "[[]ab].txt", "[!a"]:
        with pytest.raises(InputError, match=r"matches this pattern|no file there"):
            list_sources(join(folder, "none", pattern))
    assert names_of(join(folder, "[[]ab].txt")) == ["[ab].txt"]
    assert names_of(f"{folder}/[^b].txt") == names_of(f"{folder}/[!b].txt") == ["a.txt"]


def names_of(corpus, **options):
    return [source.name for source in list_corpus(corpus, **options).sources]


def test_endings_count_in_either_case(folder):
    names = ["A.TXT.GZ", "B.JSONL", "C.Parquet", "d.ndjson.XZ", "part-00001", "part-m-00002.bz2", "part-r-00000"]
    for name in names:
        write_bytes(join(folder, name), b"x")
    found = list_sources(folder)
    assert [source.name for source in found] == names
    assert [(source.format, source.compression) for source in found] == [
        ("txt", "gz"),
        ("jsonl", None),
        ("parquet", None),
        ("jsonl", "xz"),
        ("txt", None),
        ("txt", "bz2"),
        ("txt", None),
    ]


def test_what_is_left_out_is_named(folder):
    for name in ["a.txt", "notes.pdf", ".part-00000.crc", "_SUCCESS", "sub/_b.txt", "sub/c.csv", "sub/d.txt"]:
        write_bytes(join(folder, name), b"x")
    listing = list_corpus(folder)
    assert [source.name for source in listing.sources] == ["a.txt", "sub/d.txt"]
    assert listing.left_out == [".part-00000.crc", "_SUCCESS", "notes.pdf", "sub/_b.txt", "sub/c.csv"]
    assert listing.describe_left_out().startswith("5 files or folders left out (")
    assert listing.describe_left_out().endswith("): .part-00000.crc, _SUCCESS, notes.pdf, sub/_b.txt, sub/c.csv")
    write_bytes(join(folder, ".git/e.txt"), b"x")
    assert list_corpus(f"{folder}/*.txt").left_out == []
    assert list_corpus(f"{folder}/sub/*").left_out == ["_b.txt"]
    assert list_corpus(f"{folder}/**").left_out[1:] == [".part-00000.crc", "_SUCCESS", "sub/_b.txt"]


def test_the_lake_is_no_part_of_the_corpus(folder):
    lake = join(folder, "my lake")
    for name in ["a.txt", "my lake/runs/r/generate/generated.txt", "my lake/corpora/b.txt", "my lake 2/c.txt"]:
        write_bytes(join(folder, name), b"x")
    assert names_of(folder, lake_uri=lake) == ["a.txt", "my lake 2/c.txt"]
    assert names_of(f"{folder}/**/*.txt", lake_uri=lake) == ["a.txt", "my lake 2/c.txt"]
    assert names_of(join(lake, "corpora"), lake_uri=lake) == ["b.txt"]
    assert names_of(lake, lake_uri=lake) == ["corpora/b.txt"]
    assert names_of(folder, lake_uri="s3://other/my lake") == names_of(folder)
    assert names_of(lake, lake_uri=join(folder, "other")) == ["corpora/b.txt", "runs/r/generate/generated.txt"]


def test_the_lake_is_found_behind_links(tmp_path, monkeypatch):
    (tmp_path / "texts/lake").mkdir(parents=True)
    (tmp_path / "texts/lake/b.txt").write_bytes(b"b")
    (tmp_path / "texts/a.txt").write_bytes(b"a")
    (tmp_path / "link").symlink_to("texts")
    monkeypatch.chdir(tmp_path)
    assert names_of("link/../texts", lake_uri=to_uri("./link/lake")) == ["a.txt"]
    assert names_of("link", lake_uri=to_uri("texts/lake")) == ["a.txt"]


def test_folders_may_be_named_like_files(tmp_path):
    (tmp_path / "x.jsonl").mkdir()
    (tmp_path / "x.jsonl/part-00000.jsonl").write_bytes(b"x")
    assert names_of(str(tmp_path)) == ["x.jsonl/part-00000.jsonl"]
    assert names_of(f"{tmp_path}/x.jsonl") == ["part-00000.jsonl"]
    with pytest.raises(InputError, match="matches this pattern; to match files in folders, end the pattern in"):
        list_sources(f"{tmp_path}/*.jsonl")


def test_a_file_counts_once(tmp_path):
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/z.txt").write_bytes(b"z")
    (folder / "b.txt").write_bytes(b"b")
    (folder / "c.txt").hardlink_to(folder / "b.txt")
    (folder / "a.txt").symlink_to("sub/z.txt")
    (folder / "again").symlink_to("sub")
    (folder / "sub/up").symlink_to("..")
    assert names_of(str(folder)) == ["b.txt", "sub/z.txt"]
    twice = [folder, folder / "sub", f"{folder}/*.txt", f"{tmp_path}/./texts/sub/../b.txt"]
    assert names_of("\n".join(map(str, twice))) == ["texts/b.txt", "texts/sub/z.txt"]
    (folder / "d.txt").write_bytes(b"b")  # the same content in another file
    assert names_of(str(folder)) == ["b.txt", "d.txt", "sub/z.txt"]


def test_an_object_counts_once(s3_uri):
    write_bytes(f"{s3_uri}/a//b.txt", b"x")
    assert names_of(f"{s3_uri}/a\n{s3_uri}/a//b.txt\n{s3_uri}/**") == ["a//b.txt"]
    assert names_of(f"{s3_uri}/a//*.txt") == ["/b.txt"]


def test_folders_that_a_pattern_does_not_reach_are_not_read(tmp_path):
    (tmp_path / "texts/deep").mkdir(parents=True)
    (tmp_path / "texts/deep/b.txt").touch()
    (tmp_path / "texts/a.txt").write_bytes(b"x")
    (tmp_path / "texts/secret").mkdir(mode=0)
    (tmp_path / "texts/.hidden").mkdir(mode=0)
    corpora = {f"{tmp_path}/texts/*.txt": ["a.txt"], f"{tmp_path}/texts/d*/*": ["deep/b.txt"]}
    tmp_path.chmod(0o755)
    for corpus, names in corpora.items():
        assert as_nobody(corpus, tmp_path) == json.dumps(names)
    refused = as_nobody(str(tmp_path / "texts"), tmp_path)
    assert "cannot be read" in refused
    assert "secret" in refused


def as_nobody(corpus, folder):
    """List a corpus in a process of a user for whom permissions count; return the names as JSON, or the error."""
    for parent in [folder, *folder.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            result = json.dumps(names_of(corpus))
        except InputError as error:
            result = str(error)
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as results:
        result = results.read()
    os.waitpid(child, 0)
    return result


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: socket.socket(socket.AF_UNIX).bind(str(path))])
def test_pipes_and_sockets_are_refused_at_once(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    make(Path("a.txt"))
    Path("b.txt").write_bytes(b"x")
    listing = list_corpus(str(tmp_path))
    assert [source.name for source in listing.sources] == ["b.txt"]
    assert listing.left_out == ["a.txt"]
    assert list_corpus(f"{tmp_path}/b*").left_out == []
    with pytest.raises(InputError, match="is a pipe, a socket or a device"):
        list_sources(str(tmp_path / "a.txt"))


@pytest.mark.parametrize("corpus", ["x" * 5000, "a/" * 3000, "[" * 3000 + "]" * 3000, "nul\0.txt", "[1]", "[]", "**"])
def test_odd_places_are_refused(tmp_path, monkeypatch, corpus):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        list_sources(corpus)
    assert "\n" not in str(caught.value)


def test_a_corpus_without_text_is_refused(folder):
    with pytest.raises(InputError, match="no file there"):
        list_sources(folder)
    write_bytes(join(folder, "notes.md"), b"x")
    with pytest.raises(InputError, match=r"its only file is not named \*\.txt"):
        list_sources(folder)


def test_a_pattern_below_a_file_is_refused(folder):
    write_bytes(join(folder, "a.txt"), b"x")
    with pytest.raises(InputError, match=r"cannot be read|no file there"):
        list_sources(join(folder, "a.txt/*.txt"))


def test_a_missing_bucket_is_refused(s3_server):
    with pytest.raises(InputError, match=r"s3://no-such-bucket/text: cannot be read .*NoSuchBucket"):
        list_sources("s3://no-such-bucket/text")


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
