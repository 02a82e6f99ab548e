"""Words of more than 1,024 bytes are cut before BPE is trained, and are no tokens of a vocabulary of words."""

import random
from collections import Counter

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from jobs.config import TokenizeConfig
from jobs.tokenizer.long_words import MAX_WORD_BYTES, WordCutter
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import train_bpe, vocabulary_json
from tests.support.foreign import TEXT

SEPARATOR = "\ue000"  # no sample has this character
RUNS = {
    "letters": "abcdefghijklmnop",
    "digits": "0123456789",
    "signs": "=+-*/!#",
    "spaces": " \t\n",
    "wide spaces": " \u3000\u2003",
    "characters of three bytes": "漢字書語",
    "characters of four bytes": "😀😁😂",
}


def message_of(text):
    """Return the words of GPT-2's pattern, by Hugging Face `tokenizers`."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return [text[start:end] for _, (start, end) in splitter.pre_tokenize_str(text)]


def run(kind, length, seed=0):
    return "".join(random.Random(seed).choices(RUNS[kind], k=length))


@pytest.mark.parametrize("kind", RUNS)
def test_a_long_word_is_cut_and_counted(kind):
    text = f"{TEXT} {run(kind, 5000)}end and {run(kind, 200)}. {TEXT}"
    cutter = WordCutter(SEPARATOR.encode())
    cut = cutter.cut(text.encode()).decode()
    assert cut.replace(SEPARATOR, "") == text
    assert cutter.num_cut == 1
    assert cutter.longest == max(len(word.encode()) for word in message_of(text)) > MAX_WORD_BYTES
    assert cut.count(SEPARATOR) == (cutter.longest - 1) // MAX_WORD_BYTES
    parts = [word for part in cut.split(SEPARATOR) for word in message_of(part)]
    assert max(len(word.encode()) for word in parts) <= MAX_WORD_BYTES + 4


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([*RUNS]), st.sampled_from([1, 7, 255, 1023, 1024, 1025, 1500])), max_size=6))
def test_exactly_the_long_words_are_cut(parts):
    text = "".join(run(kind, length, seed) for seed, (kind, length) in enumerate(parts))
    cutter = WordCutter(SEPARATOR.encode())
    cut = cutter.cut(text.encode())
    long = [len(word.encode()) for word in message_of(text) if len(word.encode()) > MAX_WORD_BYTES]
    assert (cutter.num_cut, cutter.longest) == (len(long), max(long, default=0))
    assert cut.decode().replace(SEPARATOR, "") == text
    if not long:
        assert cut == text.encode()


def test_text_without_long_words_stays_as_it_is():
    text = (TEXT * 20).encode()
    assert WordCutter(b"|").cut(text) is text
    assert WordCutter(b"|").cut("漢。".encode() * 9000) == "漢。".encode() * 9000


def test_a_long_word_is_trained_as_its_pieces(caplog):
    """Otherwise each merge goes through all of the word, and 2 MB of letters take a minute."""
    word = run("letters", 300_000).encode()
    pieces = [word[i : i + MAX_WORD_BYTES] for i in range(0, len(word), MAX_WORD_BYTES)]
    assert train_bpe([word], 2000) == train_bpe(pieces, 2000)
    (record,) = caplog.records
    assert record.getMessage() == (
        "words of more than 1024 bytes were divided before BPE was trained (number: 1, longest: 300000 bytes)"
    )


def test_a_long_word_is_encoded_whole():
    word = run("letters", 100_000)
    tokenizer = Tokenizer(train_bpe([word.encode()], 400))
    reference = tokenizers.Tokenizer.from_str(tokenizer.json.decode())
    assert tokenizer.encode(word).tolist() == reference.encode(word).ids


def test_a_long_word_is_no_token_of_a_vocabulary_of_words(caplog):
    counts = Counter({"x" * 5000: 9, "y" * 1024: 8, "é" * 513: 7, "the": 5})
    tokenizer = Tokenizer(vocabulary_json([counts], TokenizeConfig(kind="word")))
    assert tokenizer.vocab_size == 4
    assert tokenizer.encode("x" * 5000 + " the").tolist() == [1, 3]
    (record,) = caplog.records
    assert record.getMessage() == "words of more than 1024 bytes become <unk> (number: 2, longest: 5000 bytes)"
