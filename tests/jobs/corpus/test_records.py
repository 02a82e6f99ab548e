"""Records of JSONL and Parquet give the same documents as text, and one clear line for each error."""

import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange, divide_sources
from jobs.corpus.check import check_sources
from jobs.corpus.reading import read_documents
from jobs.errors import InputError
from jobs.lake.uri import to_uri
from jobs.sources.listing import Source

TEXTS = ["One.\r\n\r\nTwo\nlines.", "  \n", "漢字 \x00 😀", "Three.\n\n\n Four. "]
PARAGRAPHS = [b"One.", b"Two\nlines.", "漢字 \x00 😀".encode(), b"Three.", b"Four."]


def table(texts, column="text", **options):
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": range(len(texts)), column: texts}), sink, **options)
    return sink.getvalue()


def lines(texts, **options):
    return "\n".join(json.dumps({"id": 1, "text": text}, **options) for text in texts).encode()


def two_columns(names):
    sink = io.BytesIO()
    pq.write_table(pa.table([pa.array(["x"]), pa.array(["y"])], names), sink)
    return sink.getvalue()


def flipped():
    """Return a table whose text was altered after it was written."""
    data = table(["plain text"] * 9, write_page_checksum=True, compression="none", use_dictionary=False)
    assert data.count(b"plain text") > 8
    return data.replace(b"plain text", b"plain test")


DUPLICATE_COLUMNS, FLIPPED = two_columns(["text", "text"]), flipped()


def put(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return Source(name, to_uri(str(path)), len(data))


def read(source, split_bytes=1 << 20, **settings):
    how = TokenizeConfig(**settings)
    check_sources([ByteRange.whole(source)], settings=how)
    parts = [part for split in divide_sources([source], split_bytes, whole_files=False) for part in split]
    batches = [batch for part in parts for batch in read_documents(part, how)]
    counts = sum((batch.counts for batch in batches), start=type(batches[0].counts)())
    return [text for batch in batches for text in batch.texts], counts


@pytest.mark.parametrize("split_bytes", [1, 7, 50, 1 << 20])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", lines(TEXTS)),
        ("b.jsonl", b"\xef\xbb\xbf" + lines(TEXTS, ensure_ascii=False).replace(b"\n", b"\r\n\r\n") + b"\n"),
        ("c.jsonl.gz", gzip.compress(lines(TEXTS), mtime=0)),
        ("d.parquet", table(TEXTS, row_group_size=1)),
        ("e.parquet", table(pa.array(TEXTS, pa.large_string()), compression="zstd")),
        ("f.parquet", table(pa.array(TEXTS).dictionary_encode())),
        ("h.parquet", table(pa.array(TEXTS, pa.string_view()))),
        ("i.parquet", table(pa.array([text.encode() for text in TEXTS], pa.binary_view()))),
        ("j.parquet", table(pa.array(TEXTS, pa.large_string()).dictionary_encode(), row_group_size=1)),
        ("k.parquet", table(TEXTS, write_page_checksum=True, data_page_version="2.0")),
        ("m.parquet", table(pa.array([text.encode() for text in TEXTS], pa.large_binary()))),
        ("L.NDJSON.XZ", lzma.compress(lines(TEXTS).replace(b"\n", b"\r"))),
        ("g.parquet.zst", pa.compress(table(TEXTS, row_group_size=2), "zstd", asbytes=True)),
    ],
)
def test_records_of_any_format_and_range(tmp_path, name, data, split_bytes):
    source = put(tmp_path, name, data)
    texts, counts = read(source, split_bytes)
    assert texts == PARAGRAPHS
    assert counts["empty_documents"] == 1
    assert read(source, split_bytes, documents="record")[0] == [
        text.replace("\r\n", "\n").strip().encode() for text in TEXTS if text.strip()
    ]


def test_nulls_and_replaced_characters_are_counted(tmp_path):
    data = b'{"text": null}\n{"text": "a\\ud800b \\ud83d\\ude00"}\n{"text": "c\xff"}'
    texts, counts = read(put(tmp_path, "a.jsonl", data), invalid_utf8="replace")
    assert texts == ["a\ufffdb 😀".encode(), "c\ufffd".encode()]
    assert (counts["null_records"], counts["empty_documents"], counts["replaced_letters"]) == (1, 1, 2)
    column = pa.array([b"c\xff", None], pa.binary())
    texts, counts = read(put(tmp_path, "a.parquet", table(column)), invalid_utf8="replace")
    assert texts == ["c\ufffd".encode()]
    assert (counts["null_records"], counts["replaced_letters"]) == (1, 1)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (
            "a.jsonl",
            b'{"text": "x"}\n\n{"body": "y"}\n',
            r"a\.jsonl: line 3: the record has no field 'text' \(its fields: body\)",
        ),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', r"line 2: the field 'text' holds int"),
        ("a.jsonl", b'{"text": "x"}\n["y"]', r"line 2: the JSON value is of type list, not an object"),
        ("a.jsonl", b'{"text": "x"\n', r"line 1: not valid JSON \(Expecting ',' delimiter, column 13\)"),
        ("a.jsonl", b'\n{"text": "\\udfff"}', r"line 2: the text has half of a surrogate pair \(\\udfff\)"),
        ("a.jsonl", b'{"text": "\xff"}', r"not UTF-8 at byte 10 \(0xff\)"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "x"}\n' * 99 + b"{}\n", mtime=0),
            r"a\.jsonl\.gz: line 100: the record has no field",
        ),
        ("a.jsonl", b'[\n{"text": "x"}\n]', r"its content is a JSON array of objects; .* jq -c"),
        ("a.jsonl", b'{\n"text": "x"\n}', r"line 1: the JSON spans several lines; write each record on one line"),
        ("a.jsonl", b'{"text": "x"}\r{"text": "y"}\r\r\n{}', r"line 4: the record has no field"),
        ("a.jsonl", b'{"text": "x", "deep": ' + b"[" * 100_000, r"line 1: JSON nested too deeply"),
        ("a.jsonl", b'{"text": NaN}', r"line 1: the field 'text' holds float"),
        ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", r"line 1: the field 'text' holds float"),
        ("a.parquet", table(TEXTS)[:-20], r"a\.parquet: truncated Parquet file: its end is missing"),
        ("a.parquet", table(TEXTS)[:-20] + bytes(16) + b"PAR1", r"a\.parquet: damaged Parquet file \("),
        ("a.parquet", b"PARE" + table(TEXTS)[4:], r"an encrypted Parquet file; decrypt it"),
        ("a.parquet", b"id,text\n1,x\n", r"its content is not Parquet, though its name says so"),
        ("a.parquet", b"PAR1", r"truncated Parquet file"),
        (
            "a.parquet",
            table(TEXTS, "body"),
            r"the file has no column 'text' \(its columns: id, body\); set tokenize\.field",
        ),
        ("a.parquet", DUPLICATE_COLUMNS, r"2 columns are named 'text'; rename all but one"),
        ("a.parquet", table([["x"]]), r"column 'text' holds list<element: string> instead of text"),
        (
            "a.parquet",
            table(pa.array([["x"]], pa.large_list(pa.large_string()))),
            r"column 'text' holds large_list<element: large_string> instead of text; set tokenize\.field",
        ),
        ("a.parquet", table([{"x": "y"}]), r"column 'text' holds struct<x: string> instead of text"),
        (
            "a.parquet",
            FLIPPED,
            r"damaged Parquet file \(could not verify page integrity, CRC checksum verification failed",
        ),
        ("a.parquet", table([1, 2]), r"column 'text' holds int64 instead of text"),
        ("a.parquet", table(pa.array([b"x", b"\xff"], pa.binary())), r"row 1: the text is not UTF-8"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, name, data, reason):
    with pytest.raises(InputError, match=reason) as caught:
        read(put(tmp_path, name, data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": ' + b"9" * 5000 + b', "text": "x"}',
        b'{"text": "y", "text": "x"}',
        b'{"n": NaN, "m": -Infinity, "text": "x"}',
        b'\xef\xbb\xbf{"text": "x"}',
        b'{"text": "x", "deep": ' + b"[" * 400 + b"]" * 400 + b"}",
        b'{"t\\u0065xt": "x"}\r\n',
    ],
)
def test_odd_records_are_read(tmp_path, line):
    texts, _ = read(put(tmp_path, "a.jsonl", b'{"text": "first"}\n' + line))
    assert texts == [b"first", b"x"]


def test_odd_columns_are_read(tmp_path):
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["x"]))
    assert read(put(tmp_path, "a.parquet", table(column)))[0] == [b"x"]
    assert read(put(tmp_path, "b.parquet", table(pa.array([b"x"], pa.binary(1)))))[0] == [b"x"]
    assert read(put(tmp_path, "c.parquet", two_columns(["text", "id"])))[0] == [b"x"]
    nested = pa.table({"a": [{"text": "no"}], "a.text": ["x"]})
    pq.write_table(nested, tmp_path / "d.parquet")
    assert read(put(tmp_path, "d.parquet", (tmp_path / "d.parquet").read_bytes()), field="a.text")[0] == [b"x"]
    texts, counts = read(put(tmp_path, "e.parquet", table(pa.nulls(3))), invalid_utf8="refuse")
    assert (texts, counts["null_records"]) == ([], 3)


def test_a_file_of_records_is_not_one_document(tmp_path):
    with pytest.raises(InputError, match=r"set tokenize\.documents=record"):
        read(put(tmp_path, "a.jsonl", lines(TEXTS)), documents="file")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.txt.gz"])
def test_an_empty_file_has_no_text(tmp_path, name):
    (checked,) = check_sources([ByteRange.whole(put(tmp_path, name, b""))], settings=TokenizeConfig())
    assert not checked.has_text
    assert checked.counts["empty_files"] == 1
