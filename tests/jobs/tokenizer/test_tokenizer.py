"""Tokenizers give the same ids and texts as Hugging Face `tokenizers` for the same ``tokenizer.json``."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InputError
from jobs.tokenizer.definition import END_OF_TEXT
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import tokenizer_json, train_bpe

PASSAGE = (Path(__file__).parents[2] / "data" / "scandal.txt").read_text("utf-8")
PIECES = [" ", "  ", "\n", "\r", "\t", "a", "B", "'s", "'LL", "é", "漢", "😀", "\u00a0", "\u3000", "\u2028", "\x00"]
PIECES += ["\x1c", "\x85", "1", "²", "٣", "\u0301", "ß", "<|", "|>", END_OF_TEXT, "!", "\u200d", "\ufeff", "Ⅷ", "_"]
PIECES += ["Holmes", " the", "ʰ", "\u180e", "\u0378", "\U0010ffff"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train_bpe([PASSAGE.encode()], 700))


@pytest.fixture(scope="module")
def reference(tokenizer):
    return tokenizers.Tokenizer.from_str(tokenizer.json.decode())


def test_vocabulary(tokenizer, reference):
    assert tokenizer.vocab_size == reference.get_vocab_size() == 700
    assert tokenizer.end_of_text == reference.token_to_id(END_OF_TEXT) == 256
    assert tokenizer.dtype == np.uint16


def test_real_text(tokenizer, reference):
    ids = tokenizer.encode(PASSAGE)
    assert ids.dtype == np.uint16
    assert ids.tolist() == reference.encode(PASSAGE).ids
    assert len(ids) < len(PASSAGE.encode()) / 2
    assert tokenizer.decode(ids) == reference.decode(ids.tolist()) == PASSAGE


@pytest.mark.slow
@settings(max_examples=2000)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=20).map("".join)))
def test_any_text(tokenizer, reference, text):
    ids = tokenizer.encode(text)
    assert ids.tolist() == reference.encode(text).ids
    assert tokenizer.decode(ids) == reference.decode(ids.tolist(), skip_special_tokens=False) == text


@settings(max_examples=60)
@given(st.lists(st.text("ab é漢", min_size=1, max_size=30), min_size=1, max_size=5), st.integers(258, 300))
def test_vocabulary_of_a_tiny_text(texts, vocab_size):
    data = train_bpe([text.encode() for text in texts], vocab_size)
    assert data == train_bpe([text.encode() for text in texts], vocab_size)
    tokenizer, reference = Tokenizer(data), tokenizers.Tokenizer.from_str(data.decode())
    assert 257 <= tokenizer.vocab_size == reference.get_vocab_size() <= vocab_size
    for text in [*texts, "".join(texts)]:
        assert tokenizer.encode(text).tolist() == reference.encode(text).ids


def test_end_of_text_inside_a_text_becomes_the_token(tokenizer, reference):
    """Hugging Face does the same. In training, it separates texts."""
    ids = tokenizer.encode(f"one{END_OF_TEXT}two").tolist()
    assert ids == reference.encode(f"one{END_OF_TEXT}two").ids
    assert ids == [*tokenizer.encode("one"), 256, *tokenizer.encode("two")]
    assert train_bpe([f"ab{END_OF_TEXT}cd".encode()] * 9, 300) == train_bpe([b"ab", b"cd"] * 9, 300)


def test_batch(tokenizer, reference):
    documents = [line.encode() for line in PASSAGE.split("\n")]
    for parallel in (False, True):
        ids, offsets = tokenizer.encode_batch(documents, parallel)
        assert ids.dtype == tokenizer.dtype
        found = [ids[offsets[i] : offsets[i + 1]].tolist() for i in range(len(documents))]
        assert found == [reference.encode(document.decode()).ids for document in documents]


def test_invalid_bytes_and_ids_when_decoding(tokenizer):
    assert tokenizer.decode([0xC3, 0x28]) == "\ufffd("
    assert tokenizer.decode(np.array([], np.uint16)) == ""
    for ids in ([700], [-1]):
        with pytest.raises(ValueError, match=r"must be in \[0, 700\)"):
            tokenizer.decode(ids)


def test_a_tokenizer_is_pickled_as_its_json(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.json == tokenizer.json
    assert copy is pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode(PASSAGE).tolist() == tokenizer.encode(PASSAGE).tolist()


def test_large_vocabulary_takes_four_bytes():
    pairs = [(bytes([first]), bytes([second])) for first in range(256) for second in range(256)]
    tokenizer = Tokenizer(tokenizer_json(pairs))
    assert tokenizer.vocab_size == 257 + 65_536
    assert tokenizer.encode("\xff").dtype == np.uint32


def test_training_prints_nothing(capfd):
    train_bpe([b"some text"], 300)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a tokenizer.json"),
        (b"\xff\xfe", "not a tokenizer.json"),
        (b"[1]", "not a tokenizer.json"),
        (b'{"added_tokens": [3]}', "not a tokenizer.json"),
        (b'{"added_tokens": [{"id": 0, "content": "<|endoftext|>"}], "model": null}', "not a tokenizer.json"),
        (b'{"added_tokens": [{"id": "x", "content": "<|endoftext|>"}], "model": {}}', "not a tokenizer.json"),
        (b'{"added_tokens": [], "model": {}}', r"no special token <\|endoftext\|>"),
        (b'{"added_tokens": [{"id": 0, "content": "<|endoftext|>"}], "model": {}}', "this tokenizer cannot be loaded"),
    ],
)
def test_files_that_are_no_tokenizer_are_refused(data, reason):
    with pytest.raises(InputError, match=f"my.json: .*{reason}"):
        Tokenizer(data, "my.json")
