"""Files that are no text are refused, with what they look like; unusual text is taken."""

import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from jobs.errors import InputError
from jobs.sources.contents import is_markup, nul_bytes_if_binary, refuse_other_content
from tests.support.datasets import PASSAGE

TEXTS = {
    "english": PASSAGE.decode(),
    # ruff: noqa: RUF001 - letters of other alphabets
    "russian": "Все счастливые семьи похожи друг на друга,\nкаждая несчастливая семья несчастлива по-своему.\n" * 9,
    "greek": "Ἄνδρα μοι ἔννεπε, Μοῦσα, πολύτροπον\n" * 9,
    "hindi": "सभी मनुष्य जन्म से स्वतन्त्र तथा मर्यादा और अधिकारों में समान होते हैं।\n" * 9,
    "japanese": "吾輩は猫である。名前はまだ無い。\nどこで生れたかとんと見当がつかぬ。\n" * 9,
    "emoji": "yes 😀 no 🎉\n" * 9,
    "short": "ab",
}


def refuse(data, name="a.txt"):
    refuse_other_content(f"file:///{name}", name, data, "text")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "part-r-00000"])
def test_wide_encodings_are_named(text, encoding, name):
    with pytest.raises(InputError, match=rf"it looks like {encoding.upper()}; convert it to UTF-8") as caught:
        refuse(TEXTS[text].encode(encoding), name)
    assert f"iconv -f {encoding.upper()} -t UTF-8" in str(caught.value)


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_taken_with_a_few_nul_bytes(text):
    data = TEXTS[text].encode()
    refuse(data)
    refuse(b"\xef\xbb\xbf" + data)
    refuse(data * 20 + b"\0" * len(data))
    refuse(data * 20 + b"\0" + data)


def zipped(*names):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, "application/epub+zip" if name == "mimetype" else "text")
    return sink.getvalue()


def tar():
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return sink.getvalue()


def written(write, table=None):
    sink = io.BytesIO()
    write(pa.table({"text": ["a"]}) if table is None else table, sink)
    return sink.getvalue()


def database():
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (text)")
    return connection.serialize()


OTHERS = {
    "gzip": gzip.compress(b"text"),
    "xz": lzma.compress(b"text"),
    "tar": tar(),
    "zip": zipped("a.txt"),
    "an Office document": zipped("[Content_Types].xml", "word/document.xml"),
    "an EPUB book": zipped("mimetype", "content.opf"),
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "RTF": rb"{\rtf1\ansi\deff0 Text}",
    "PostScript": b"%!PS-Adobe-3.0\n",
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "SQLite": database(),
    "a Python pickle": pickle.dumps(["text"] * 3),
    "NumPy": written(lambda array, sink: np.save(sink, array), np.arange(9)),
    "Parquet": written(pq.write_table),
    "Arrow": written(pyarrow.feather.write_feather),
    "ORC": written(pyarrow.orc.write_table),
    "a program": b"\x7fELF\x02\x01\x01" + bytes(9),
    "binary": bytes(range(4)) * 100,
    "a JSON array": json.dumps([{"body": "a"}, {"body": "b"}], indent=2).encode(),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.log"])
def test_other_formats_are_named(kind, name):
    with pytest.raises(InputError, match=rf"/{name}: its content is {kind}\b") as caught:
        refuse(OTHERS[kind], name)
    assert "; " in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b"ORCHESTRA",
        b"RIFF and raff",
        b"ID3 tags are explained here.",
        b"MZ",
        b"PK",
        b"PAR1 and PAR2 are formats of archives.",
        b"GIF89a was made in 1989.",
        b"The ftyp box comes first.",
        b"A" * 257 + b"ustar is a format.",
        b"[1] A note.",
        b"[ {curly} ]",
        b'{"body": 1}',
        b'[{"a": 1}'[:2],
        b"%PDFs are files.",
        b"<p>",
        b"",
    ],
)
def test_text_that_only_begins_alike_is_taken(text):
    refuse(text)


def test_blocks_of_nul_bytes():
    assert nul_bytes_if_binary(bytes(100)) == 100
    assert nul_bytes_if_binary(b"a" * 91 + bytes(9)) == 0
    assert nul_bytes_if_binary(b"") == 0


def test_markup_is_recognized():
    assert is_markup(b"\xef\xbb\xbf\n<!DOCTYPE html><html>")
    assert is_markup(b'<?xml version="1.0"?>')
    assert not is_markup(b"<3 she wrote")
