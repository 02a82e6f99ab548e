"""Long documents become pieces, at places that the text around them decides."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.config import resolve
from jobs.corpus.documents import Documents
from jobs.corpus.pieces import cut_documents, find_pieces
from tests.support.prose import prose

MOST = 1024


def texts_of(text, most=MOST):
    return [text[begin:end] for begin, end in find_pieces(text, most)]


@pytest.mark.parametrize(
    "text",
    [
        prose(1, 9000),
        prose(2, 9000, line=10**9, paragraph=10**9),  # one line
        "漢字假名交じり文".encode() * 3000,  # no spaces, and it repeats itself
        b"x" * 50_001,
        b"x" + b" " * 50_000 + b"y",
        b"same line\n" * 9000,
        prose(3, 500) + b"z" * 9000 + prose(4, 500),
    ],
)
def test_pieces_hold_the_whole_text_and_keep_their_limits(text):
    pieces = find_pieces(text, MOST)
    assert all(0 < end - begin <= MOST for begin, end in pieces)
    assert all(text[begin:end].strip() == text[begin:end] for begin, end in pieces)
    borders = [0, *(edge for piece in pieces for edge in piece), len(text)]
    between = [text[borders[i] : borders[i + 1]] for i in range(0, len(borders), 2)]
    assert not b"".join(between).strip()  # only whitespace is left out
    for piece in texts_of(text):
        piece.decode()  # no letter is cut


def test_cuts_are_after_paragraphs_where_there_are_some():
    text = prose(5, 20_000, paragraph=30)
    starts = [begin for begin, _ in find_pieces(text, MOST)][1:]
    assert sum(text[begin - 2 : begin] == b"\n\n" for begin in starts) > 0.9 * len(starts)


@pytest.mark.parametrize("chunk", [1 << 20, 1 << 12])
@pytest.mark.parametrize("inserted", [b"A new first line.\n", b"x", prose(8, 5000)])
def test_an_insertion_moves_no_later_piece(inserted, chunk, monkeypatch):
    monkeypatch.setattr("jobs.corpus.pieces._CHUNK_BYTES", chunk)
    text = prose(6, 60_000)
    before, after = texts_of(text), texts_of(text[:700] + inserted + text[700:])
    assert len(before) > 300
    assert sum((Counter(before) - Counter(after)).values()) <= 4
    assert before[4:] == after[len(after) - len(before) + 4 :]


@given(st.integers(0, 2**32), st.integers(0, 30_000), st.integers(0, 300))
def test_an_edit_changes_only_pieces_near_it(seed, place, deleted):
    text = prose(seed, 6000)
    edited = (text[:place] + text[place + deleted :]).strip()
    lost = Counter(texts_of(text)) - Counter(texts_of(edited))
    assert sum(lost.values()) <= 6


def test_short_documents_stay_and_pieces_keep_their_document_s_offset():
    batch = Documents.of([b"short", prose(7, 3000), b"also short"], [5, 10, 90_000], Counter(empty_documents=2))
    cut = cut_documents(batch, MOST)
    assert (cut.texts[0], cut.texts[-1]) == (b"short", b"also short")
    assert cut.offsets.tolist() == [5, *[10] * (len(cut.texts) - 2), 90_000]
    assert cut.counts == {"empty_documents": 2, "divided_documents": 1}
    assert cut_documents(batch, 1 << 20) is batch


def test_only_the_fixed_split_needs_pieces():
    assert resolve("c", "tiny", {"tokenize.max_piece_bytes": 2048}).text_settings.max_piece_bytes is None
    fixed = {"windows.split": "fixed"}
    assert resolve("c", "tiny", fixed).text_settings.max_piece_bytes == 1 << 14
    assert resolve("c", "tiny", {**fixed, "tokenize.max_piece_bytes": 2048}).text_settings.max_piece_bytes == 2048
