"""The marks of Project Gutenberg since 1991: the text of each book stays, headers and licences go, in any format."""

import gzip
import io
import json
from itertools import product

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.corpus.gutenberg import MarkFinder, between_marks, has_real_marks, keep_bodies
from jobs.lake.uri import to_uri
from tests.support.datasets import Pipeline, write_corpus

LICENCE = """*** START: FULL LICENSE ***

THE FULL PROJECT GUTENBERG LICENSE
PLEASE READ THIS BEFORE YOU DISTRIBUTE OR USE THIS WORK

including how to make donations to the Project Gutenberg Literary
Archive Foundation, how to help produce our new eBooks, and how to
subscribe to our email newsletter to hear about new eBooks."""
SMALL_PRINT = """***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***
Why is this "Small Print!" statement here?  You know: lawyers.
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*"""

STARTS = {
    "2020": "The Project Gutenberg eBook of Nothing\n\nThis eBook is for the use of anyone anywhere.\n\n"
    "Title: Nothing\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK NOTHING ***",
    "2010": "The Project Gutenberg EBook of Nothing, by Nobody\n\nTitle: Nothing\n\n"
    "*** START OF THIS PROJECT GUTENBERG EBOOK NOTHING ***\n\n\n\n\nProduced by A. Volunteer and the Online\n"
    "Distributed Proofreading Team at https://www.pgdp.net",
    "no spaces": "Project Gutenberg's Nothing, by Nobody\n\nTitle: Nothing\n\n"
    "***START OF THE PROJECT GUTENBERG EBOOK NOTHING***",
    "two lines": "The Project Gutenberg EBook of Nothing\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK NOTHING, BEING A LONG\nTITLE OF MANY WORDS ***",
    "copyrighted": "**This is a COPYRIGHTED Project Gutenberg Etext, Details Below**\n\n"
    "*** START OF THE COPYRIGHTED PROJECT GUTENBERG ETEXT NOTHING ***",
    "1993": "**The Project Gutenberg Etext of Nothing, by Nobody**\n\nJanuary, 1994 [Etext #100]\n\n"
    f"{SMALL_PRINT}\n\n\nThis etext was prepared by A. Volunteer, Somewhere.",
    "1992": "******The Project Gutenberg Etext of Nothing******\n\n"
    "*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.1*END*",
    "no header line": "Title: Nothing\n\n*** START OF THE PROJECT GUTENBERG EBOOK NOTHING ***",
}
ENDS = {
    "2020": f"*** END OF THE PROJECT GUTENBERG EBOOK NOTHING ***\n\nUpdated editions will replace it.\n\n{LICENCE}",
    "2010": "End of the Project Gutenberg EBook of Nothing, by Nobody\n\n"
    f"*** END OF THIS PROJECT GUTENBERG EBOOK NOTHING ***\n\n***** This file should be named 1.txt\n\n{LICENCE}",
    "2004": f"End of Project Gutenberg's Nothing, by Nobody\n\n***END OF THE PROJECT GUTENBERG EBOOK***\n\n{LICENCE}",
    "1993": "End of The Project Gutenberg Etext of Nothing",
    "this": "The End of this Etext",
    "2002": f"End of Project Gutenberg Etext Nothing\n\n{SMALL_PRINT.replace('ETEXTS', 'EBOOKS')}",
    "German": "Ende dieses Projekt Gutenberg Etextes",
    "German, later": "Ende dieses Project Gutenberg E-Books",
    "French": f"Ce document fut présenté en lecture sur Internet\n\n{LICENCE}",
    "French, without accents": "Ce document fut presente en lecture",
    "no end mark": LICENCE,
}
PLAIN = "A text of another origin.\n\nWith two paragraphs, which name Project Gutenberg."


def body(number):
    return f"Chapter {number}\n\nIt was the {number}. night.\n\nThe end of chapter {number}."


def paragraphs(text):
    return [part for part in text.split("\n\n") if part.strip()]


def read(finder, text, size):
    for start in range(0, len(text), size):
        finder.add(text[start : start + size])
    return finder.marks()


@pytest.mark.parametrize(("start", "end"), list(product(STARTS, ENDS)))
def test_books_of_every_time(start, end):
    books = [f"{STARTS[start]}\n\n\n{body(number)}\n\n\n{ENDS[end]}\n\n\n" for number in range(3)]
    kept, has_marks = between_marks("".join(books).encode())
    assert has_marks
    assert paragraphs(kept.decode()) == [part for number in range(3) for part in paragraphs(body(number))]


@given(st.lists(st.tuples(st.sampled_from(list(STARTS)), st.sampled_from(list(ENDS))), min_size=1, max_size=5))
def test_books_of_different_times_in_one_text(books):
    text = "".join(f"{STARTS[start]}\n\n{body(i)}\n\n{ENDS[end]}\n\n" for i, (start, end) in enumerate(books))
    kept, _ = between_marks(text.encode())
    assert paragraphs(kept.decode()) == [part for number in range(len(books)) for part in paragraphs(body(number))]


@pytest.mark.parametrize(
    "text", [PLAIN, "The Project Gutenberg eBook of Nothing is quoted here.\n\nNo more.", "One line."]
)
def test_text_without_marks_is_kept_whole(text):
    kept, has_marks = between_marks(text.encode())
    assert (kept, has_marks) == (text.encode(), False)


def test_text_after_a_licence_is_kept():
    text = (
        f"{STARTS['2020']}\n\n{body(0)}\n\n{ENDS['2020']}\n\n{PLAIN}\n\n{STARTS['2010']}\n\n{body(1)}\n\n{ENDS['1993']}"
    )
    assert paragraphs(between_marks(text.encode())[0].decode()) == [
        *paragraphs(body(0)), *paragraphs(PLAIN), *paragraphs(body(1))
    ]  # fmt: skip


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("documents", ["paragraph", "line", "file"])
@pytest.mark.parametrize("split_bytes", [4096, 1 << 20])
def test_every_unit_format_and_line_end_gives_the_same_text(tmp_path, line_end, documents, split_bytes):
    books = [
        f"{start}\n\n{body(i)}\n\n{end}\n\n" for i, (start, end) in enumerate(product(STARTS.values(), ENDS.values()))
    ]
    text = "".join(books).replace("\n", line_end)
    files = {
        "a.txt": text.encode(),
        "b.txt.gz": gzip.compress(b"\xef\xbb\xbf" + text.encode()),
        "c.txt": PLAIN.encode(),
    }
    if documents != "file":
        files["d.jsonl"] = json.dumps({"text": text}).encode()
        sink = io.BytesIO()
        pq.write_table(pa.table({"text": [text]}), sink)
        files["e.parquet"] = sink.getvalue()
    lake = to_uri(str(tmp_path))
    found = {}
    for name, data in files.items():
        pipeline = Pipeline(
            lake, write_corpus(to_uri(str(tmp_path / name)), {name: data}), name, tokenize__drop_gutenberg=True,
            tokenize__documents=documents, tokenize__split_bytes=split_bytes,
        )  # fmt: skip
        stats = pipeline.tokenize()
        assert stats["num_unmarked_texts"] == (name == "c.txt")
        found[name] = stats["num_documents"], stats["num_bytes"]
    parts = [part for number in range(len(books)) for part in paragraphs(body(number))]
    joined = len("\n\n".join(parts))
    expected = (1, joined) if documents == "file" else (len(parts), sum(map(len, parts)))
    found.pop("c.txt")
    assert set(found.values()) == {expected}


@given(st.data())
def test_blocks_of_any_size_give_the_same_marks(data):
    line_end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = "\n\n".join([STARTS["1993"], body(0), ENDS["2010"], PLAIN, STARTS["two lines"], body(1), ENDS["2002"]])
    encoded = text.replace("\n", line_end).encode()
    whole = read(MarkFinder(), encoded, len(encoded))
    assert read(MarkFinder(), encoded, data.draw(st.integers(1, 600))) == whole
    assert has_real_marks(whole)


def test_a_long_line_needs_no_memory():
    finder = MarkFinder()
    for _ in range(50):
        finder.add(b"word " * 20_000)
        assert len(finder._data) < 5000
    assert finder.marks() == ()
    assert keep_bodies(b"word", 0, ()) == b"word"
