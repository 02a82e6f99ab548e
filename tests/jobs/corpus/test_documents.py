"""Documents from any byte ranges equal those of one pass over the whole file."""

import bz2
import gzip
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.corpus import documents
from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.documents import read_text
from jobs.lake.uri import to_uri
from jobs.sources.listing import Source

COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "zst": lambda data: pa.compress(data, "zstd", asbytes=True)}
PIECES = ["a", "b c", "é", "漢字", "😀", " ", "\t", "\n", "\n\n", "\r\n", "\r", "\x00", "\u2028", "\ufeff"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus") / "text é.txt"


def read(path, data, step, unit):
    path.write_bytes(data)
    source = Source(path.name, to_uri(str(path)), len(data))
    starts = range(0, len(data), step)
    parts = [ByteRange(source, start, min(start + step, len(data))) for start in starts]
    return joined(batch for part in parts for batch in read_text(part, unit))


def joined(batches):
    batches = list(batches)
    pairs = [pair for batch in batches for pair in zip(batch.texts, batch.offsets, strict=True)]
    return pairs, sum(batch.counts["empty_documents"] for batch in batches)


def with_lf(data):
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def single_pass(data, unit):
    """Split a file line by line: a slow and simple reference."""
    text = with_lf(data.removeprefix(b"\xef\xbb\xbf"))
    if unit == "file":
        documents = [text]
    elif unit == "line":
        documents = text.split(b"\n")
    else:
        documents = [b""]
        for line in text.split(b"\n"):
            if line.strip():
                documents[-1] += line + b"\n"
            else:
                documents.append(b"")
    return [document.strip() for document in documents if document.strip()]


@settings(max_examples=300)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=60),
    mark=st.booleans(),
    step=st.integers(1, 90),
    unit=st.sampled_from(["paragraph", "line"]),
)
def test_any_ranges_equal_a_single_pass(path, pieces, mark, step, unit):
    data = b"\xef\xbb\xbf" * mark + "".join(pieces).encode()
    pairs, num_empty = read(path, data, step, unit)
    assert [text for text, _ in pairs] == single_pass(data, unit)
    lines = re.findall(rb"[^\n]*\n|[^\n]+\Z", with_lf(data.removeprefix(b"\xef\xbb\xbf")))
    assert num_empty == (len(lines) - len(pairs) if unit == "line" else 0)
    # Every byte that is not whitespace lies in exactly one document, at the offset that is returned.
    covered = bytearray(data)
    for text, offset in pairs:
        end, taken = offset, 0
        while taken < len(text):
            taken += data[end : end + 2] != b"\r\n"
            end += 1
        assert with_lf(data[offset:end]) == text
        assert b"\xff" not in covered[offset:end]
        covered[offset:end] = b"\xff" * (end - offset)
    assert not bytes(covered).removeprefix(b"\xef\xbb\xbf").replace(b"\xff", b"").strip()


@settings(max_examples=150)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=60),
    mark=st.booleans(),
    unit=st.sampled_from(["paragraph", "line", "file"]),
    compression=st.sampled_from(["gz", "bz2", "zst"]),
    block_bytes=st.integers(4, 40),
)
def test_a_stream_equals_the_plain_file(path, pieces, mark, unit, compression, block_bytes):
    data = b"\xef\xbb\xbf" * mark + "".join(pieces).encode()
    plain = read(path, data, max(1, len(data)), unit) if data else ([], 0)
    packed = path.with_name(f"{path.name}.{compression}")
    packed.write_bytes(COMPRESS[compression](data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "BLOCK_BYTES", block_bytes)
        source = Source(packed.name, to_uri(str(packed)), packed.stat().st_size)
        assert joined(read_text(ByteRange.whole(source), unit)) == plain


def test_whole_files(path):
    data = b"\xef\xbb\xbf \n\nfirst\r\n\r\nsecond \n"
    assert read(path, data, len(data), "file")[0] == [(b"first\n\nsecond", 6)]


@pytest.mark.parametrize("unit", ["paragraph", "line"])
def test_long_runs_without_a_border(path, unit):
    """50 MB of text or whitespace without a border are one document, read in linear time."""
    word = b"lorem ipsum " * 700_000
    data = b"first\n\n" + word + b" " * 40_000_000 + b"end\n\n" + b" " * 2_000_000 + b"\nlast"
    pairs, _ = read(path, data, 8 << 20, unit)
    assert [(len(text), offset) for text, offset in pairs] == [
        (5, 0),
        (len(word) + 40_000_003, 7),
        (4, len(data) - 4),
    ]
