"""The check of a corpus before anything is written, on a local disk and on S3."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import zipfile

import pyarrow as pa
import pytest

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.check import check_sources
from jobs.corpus.content import BLOCK_BYTES as BLOCK
from jobs.errors import InputError
from jobs.lake.store import write_bytes
from jobs.lake.uri import join, to_uri
from jobs.sources.listing import Source, list_sources


@pytest.fixture(params=["file", "s3"])
def folder(request, tmp_path, s3_uri):
    return s3_uri if request.param == "s3" else to_uri(str(tmp_path / "my cörpus"))


def check(sources, **settings):
    how = TokenizeConfig(**settings)
    return [check_sources([ByteRange.whole(source)], settings=how)[0] for source in sources]


@pytest.mark.parametrize("suffix", ["xz", "zst", "bz2", "gz", "zip"])
def test_a_compressed_file_needs_its_suffix(folder, suffix):
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


def test_json_records_need_their_suffix(folder):
    record = b'{"text": "A line."}\n'
    for name in ("a.json", "part-r-00000"):
        write_bytes(join(folder, name), record * 3)
        with pytest.raises(InputError, match=rf"/{name}: begins with a JSON record that has the field 'text'"):
            check(list_sources(join(folder, name)))
    write_bytes(join(folder, "b.ndjson"), record * 3)
    assert check(list_sources(join(folder, "b.ndjson")))[0].text_bytes == 21
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
def test_the_first_invalid_byte_is_named(folder, data, offset):
    write_bytes(join(folder, "a.txt"), "good é".encode())
    write_bytes(join(folder, "bad.txt"), data)
    with pytest.raises(InputError, match=rf"/bad\.txt: not UTF-8 at byte {offset} \(0x"):
        check(list_sources(folder))


def test_files_are_hashed_and_searched_for_text(folder):
    texts = {"a.txt": "漢字 é".encode() * 300_000, "b.txt": b"", "c.txt": b"\xef\xbb\xbf \r\n\n", "d.txt": b"x"}
    for name, data in texts.items():
        write_bytes(join(folder, name), data)
    sources = list_sources(folder)
    checked = check(sources)
    assert [entry.sha256 for entry in checked] == [hashlib.sha256(texts[source.name]).hexdigest() for source in sources]
    assert [entry.has_text for entry in checked] == [True, False, False, True]


@pytest.mark.parametrize("invalid", ["refuse", "replace"])
def test_no_text_is_refused_also_with_replacements(folder, invalid):
    for name, data in {"a.txt": "text".encode("utf-16-le"), "b.jsonl": b"\xff\xfe{\0", "c.txt": bytes(9)}.items():
        write_bytes(join(folder, name), data)
        with pytest.raises(InputError, match=r"looks like UTF-16|is binary, not text"):
            check(list_sources(join(folder, name)), invalid_utf8=invalid)


def test_line_ends_are_counted(folder):
    write_bytes(join(folder, "a.txt"), b"1\r2\r\n3\n4\r\r5\r")
    block = b"x" * (BLOCK - 1) + b"\r"
    write_bytes(join(folder, "b.txt"), block + b"\n" + block[2:] + b"\ry")
    write_bytes(join(folder, "c.txt"), b"<html>")
    mac, blocks, page = (checked.counts for checked in check(list_sources(folder)))
    assert (mac["crlf_line_ends"], mac["cr_line_ends"], mac["markup_files"]) == (1, 4, 0)
    assert (blocks["crlf_line_ends"], blocks["cr_line_ends"]) == (1, 2)
    assert page["markup_files"] == 1


def test_nul_bytes_behind_the_beginning_of_a_file_are_counted(tmp_path):
    write_bytes(join(tmp_path.as_uri(), "a.txt"), b"a line of text.\n" * (BLOCK // 16) + bytes(99) + b"\nmore\n")
    (source,) = check(list_sources(join(tmp_path.as_uri(), "a.txt")))
    assert source.counts["nul_bytes"] == 99


@pytest.mark.parametrize("change", [b"", b"text and more", b"t"])
def test_a_file_that_changes_while_it_is_read_is_refused(folder, change):
    write_bytes(join(folder, "a.txt"), b"text")
    sources = list_sources(folder)
    write_bytes(join(folder, "a.txt"), change)
    with pytest.raises(InputError, match=rf"/a\.txt: changed while it was read: 4 bytes .* now it has {len(change)}"):
        check(sources)


def test_a_file_that_became_a_pipe_is_refused_at_once(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"text")
    sources = list_sources(str(tmp_path))
    (tmp_path / "a.txt").unlink()
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(InputError, match="Is a pipe or a device"):
        check(sources)


def test_a_compressed_file_takes_few_requests(s3_uri, caplog):
    text = os.urandom(1_000_000).hex().encode()
    write_bytes(join(s3_uri, "a.txt.gz"), gzip.compress(text))  # 15 times the 64 KB in which Arrow decompresses
    sources = list_sources(s3_uri)
    with caplog.at_level("INFO", "werkzeug"):
        [checked] = check(sources)
    assert checked.sha256 == hashlib.sha256(text).hexdigest()
    requests = [line for line in caplog.messages if "GET /" in line and "a.txt.gz" in line]
    assert 1 <= len(requests) <= 2


def test_a_file_that_vanished_is_refused(folder):
    write_bytes(join(folder, "a.txt"), b"x")
    missing = Source("b.txt", join(folder, "b.txt"), 5)
    with pytest.raises(InputError, match=r"/b\.txt: cannot be read"):
        check([missing])
