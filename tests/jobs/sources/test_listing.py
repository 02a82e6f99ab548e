"""Listing, planning, checking and sampling a corpus."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import zipfile
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.config import TokenizeConfig
from jobs.corpus.check import check_sources
from jobs.corpus.content import BLOCK_BYTES as BLOCK
from jobs.corpus.sample import sample_documents
from jobs.corpus.splits import ByteRange, plan_splits
from jobs.errors import InputError
from jobs.lake.store import write_bytes
from jobs.lake.uri import base_name, join, to_uri
from jobs.sources.listing import Source, list_sources


@pytest.fixture(params=["file", "s3"])
def folder(request, tmp_path, s3_uri):
    return s3_uri if request.param == "s3" else to_uri(str(tmp_path / "my cörpus"))


def check(sources):
    return [check_sources([ByteRange.whole(source)], settings=TokenizeConfig())[0] for source in sources]


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


def test_there_is_no_corpus(folder):
    with pytest.raises(InputError, match="no file there"):
        list_sources(folder)
    write_bytes(join(folder, "notes.md"), b"x")
    with pytest.raises(InputError, match=r"none of its 1 files is named \*\.txt"):
        list_sources(folder)


def test_a_file_is_no_folder(folder):
    write_bytes(join(folder, "a.txt"), b"x")
    with pytest.raises(InputError, match=r"cannot be read|no file there"):
        list_sources(join(folder, "a.txt/*.txt"))


@pytest.mark.parametrize("suffix", ["xz", "zst", "bz2", "gz", "zip"])
def test_what_is_compressed_must_be_named_so(folder, suffix):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.txt", "text")
    packed = {
        "xz": lzma.compress(b"text"),
        "zst": pa.compress(b"text", "zstd", asbytes=True),
        "bz2": bz2.compress(b"text"),
        "gz": gzip.compress(b"text"),
        "zip": sink.getvalue(),
    }
    write_bytes(join(folder, f"a.{suffix}"), packed[suffix])
    with pytest.raises(InputError, match=rf"/a\.{suffix}: its content is .*, not text"):
        check(list_sources(join(folder, f"a.{suffix}")))


def test_records_must_be_named_so(folder):
    record = b'{"text": "A line."}\n'
    for name in ("a.json", "b.ndjson"):
        write_bytes(join(folder, name), record * 3)
        with pytest.raises(InputError, match=rf"/{name}: begins with a JSON record that has the field 'text'"):
            check(list_sources(join(folder, name)))
    for name, data in {"c.txt": record, "d.json": b'{"body": "A line."}\n', "e.md": b"[" * 100_000}.items():
        write_bytes(join(folder, name), data)
        assert check(list_sources(join(folder, name)))[0].has_text


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"ab\xffc", 2),
        (b"x" * BLOCK + b"\x80", BLOCK),
        (b"x" * (BLOCK - 1) + "é".encode()[:1] + b"x", BLOCK - 1),
        (b"cut \xe6\xbc", 4),
        ("UTF-16".encode("utf-16"), 0),
        (b"lone surrogate \xed\xa0\x80", 15),
    ],
)
def test_first_byte_that_is_not_utf8_is_named(folder, data, offset):
    write_bytes(join(folder, "a.txt"), "good é".encode())
    write_bytes(join(folder, "bad.txt"), data)
    with pytest.raises(InputError, match=rf"/bad\.txt: not UTF-8 at byte {offset} \(0x"):
        check(list_sources(folder))


def test_check_hashes_and_looks_for_text(folder):
    texts = {"a.txt": "漢字 é".encode() * 300_000, "b.txt": b"", "c.txt": b"\xef\xbb\xbf \r\n\n", "d.txt": b"x"}
    for name, data in texts.items():
        write_bytes(join(folder, name), data)
    sources = list_sources(folder)
    checked = check(sources)
    assert [entry.sha256 for entry in checked] == [hashlib.sha256(texts[source.name]).hexdigest() for source in sources]
    assert [entry.has_text for entry in checked] == [True, False, False, True]


def test_vanished_file(folder):
    write_bytes(join(folder, "a.txt"), b"x")
    missing = Source("b.txt", join(folder, "b.txt"), 5)
    with pytest.raises(InputError, match=r"/b\.txt: cannot be read"):
        check([missing])


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(1, 40), st.booleans())
def test_splits_cover_each_byte_once(sizes, split_bytes, whole_files):
    sources = [Source(f"{number:02}", f"file:///{number}", size) for number, size in enumerate(sizes)]
    splits = plan_splits(sources, split_bytes, whole_files)
    parts = [part for split in splits for part in split]
    covered = [(part.source.name, byte) for part in parts for byte in range(part.start, part.end)]
    assert covered == [(source.name, byte) for source in sources for byte in range(source.size)]
    assert {part.source.name for part in parts} == {source.name for source in sources}
    assert all(len(split) == 1 or sum(part.size for part in split) <= split_bytes for split in splits)
    assert all(split_bytes < sum(part.size for part in [*one, next_[0]]) for one, next_ in pairwise(splits))
    assert not whole_files or all(part.start == 0 for part in parts)


def make_sources(tmp_path, num_files):
    data = [f"file {number}: é {'word ' * 50}\n\n".encode() * 300 for number in range(num_files)]
    sources = []
    for number, text in enumerate(data):
        (tmp_path / f"{number:03}.txt").write_bytes(text)
        sources.append(Source(f"{number:03}.txt", to_uri(str(tmp_path / f"{number:03}.txt")), len(text)))
    return sources, b"".join(data)


def sample(sources, share, split_bytes=1 << 20):
    how = TokenizeConfig()
    splits = plan_splits(sources, split_bytes, whole_files=False)
    return [text for split in splits for text in sample_documents(split, share=share, settings=how)]


def test_sample_of_all(tmp_path):
    sources, data = make_sources(tmp_path, 3)
    assert sample(sources, 1) == [text.strip() for text in data.split(b"\n\n")][:-1]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("split_bytes", [1 << 14, 1 << 20])
def test_sample_is_even(tmp_path, share, split_bytes):
    sources, data = make_sources(tmp_path, 40)
    found = sample(sources, share, split_bytes)
    assert found == sample(sources, share, split_bytes)
    size = sum(map(len, found))
    assert 0.8 * share * len(data) <= size <= share * len(data)
    assert len({text.split(b":")[0] for text in found if text.startswith(b"file")}) == 40
    assert all(text.decode() for text in found)
