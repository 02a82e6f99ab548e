"""Vocabularies of words and characters give the same ids as Hugging Face `tokenizers`."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.config import TokenizeConfig, resolve
from jobs.corpus.byte_ranges import divide_sources
from jobs.errors import InputError
from jobs.lake.uri import join, to_uri
from jobs.sources.listing import list_sources
from jobs.tokenizer.definition import END_OF_TEXT
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import count_units, vocabulary_json
from tests.jobs.tokenizer.test_tokenizer import PIECES
from tests.support.datasets import PASSAGE, Pipeline, write_corpus

TEXT = Path(__file__).parents[2].joinpath("data", "scandal.txt").read_text("utf-8")


def train(tmp_path, text, split_bytes=1 << 20, **values):
    how = TokenizeConfig(**values)
    (tmp_path / "a.txt").write_text(text, "utf-8", newline="")
    splits = divide_sources(list_sources(str(tmp_path / "a.txt")), split_bytes, whole_files=False)
    counts = [count_units(parts, settings=how) for parts in splits]
    return Tokenizer(vocabulary_json(counts, how)), sum(counts, Counter())


@pytest.fixture(scope="module", params=[("word", False), ("word", True), ("char", False), ("char", True)])
def pair(request, tmp_path_factory):
    kind, lowercase = request.param
    tokenizer, _ = train(tmp_path_factory.mktemp("text"), TEXT, kind=kind, lowercase=lowercase)
    return tokenizer, tokenizers.Tokenizer.from_str(tokenizer.json.decode())


def test_real_text(pair):
    tokenizer, reference = pair
    ids = tokenizer.encode(TEXT)
    assert ids.tolist() == reference.encode(TEXT).ids
    assert 1 not in [i for part in TEXT.split("\n\n") for i in tokenizer.encode(part.strip())]  # nothing is unknown
    assert tokenizer.decode(ids) == reference.decode(ids.tolist(), skip_special_tokens=False)
    assert (tokenizer.end_of_text, reference.token_to_id("<unk>")) == (0, 1)
    assert tokenizer.vocab_size == reference.get_vocab_size()


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=20).map("".join)))
def test_any_text(pair, text):
    tokenizer, reference = pair
    ids = tokenizer.encode(text)
    assert ids.tolist() == reference.encode(text).ids
    assert tokenizer.decode(ids) == reference.decode(ids.tolist(), skip_special_tokens=False)


def test_characters_are_kept(tmp_path):
    tokenizer, counts = train(tmp_path, TEXT, kind="char")
    assert counts == Counter(char for part in TEXT.split("\n\n") for char in part.strip())
    assert tokenizer.decode(tokenizer.encode("A Scandal?\n")) == "A Scandal?\n"
    assert tokenizer.encode("aé漢").tolist()[-1] == 1
    assert tokenizer.encode("a").dtype == np.uint8


@pytest.mark.parametrize("split_bytes", [4096, 1 << 20])
def test_words_are_counted_exactly(tmp_path, split_bytes):
    text = TEXT * 5 + f"\n\nsnake_case don't {END_OF_TEXT} éa É <unk> 12"
    tokenizer, counts = train(tmp_path, text, split_bytes, kind="word", lowercase=True, min_frequency=5, vocab_size=100)
    assert counts == Counter(re.findall(r"\w+|[^\w\s]+", text.replace(END_OF_TEXT, " ").lower()))
    vocab = json.loads(tokenizer.json)["model"]["vocab"]
    assert list(vocab)[:2] == [END_OF_TEXT, "<unk>"]
    assert len(vocab) == 100
    order = sorted(counts, key=lambda word: (-counts[word], word))
    assert list(vocab)[2:] == order[:98]
    assert tokenizer.encode(f"The zebra{END_OF_TEXT}the").tolist() == [vocab["the"], 1, 0, vocab["the"]]


@pytest.mark.parametrize("kind", ["word", "char"])
def test_both_steps(tmp_path, kind):
    lake_uri = to_uri(str(tmp_path))
    corpus = write_corpus(join(lake_uri, "corpus"), {"a.txt": PASSAGE * 8})
    pipeline = Pipeline(lake_uri, corpus, tokenize__kind=kind, tokenize__vocab_size=100)
    stats = pipeline.tokenize() | pipeline.windows()
    assert stats["num_train_windows"] > 0
    assert stats["dtype"] == "uint8"
    assert pipeline.tokens.read_tokenizer().vocab_size == stats["vocab_size"] <= 100


def test_bpe_needs_a_vocabulary_for_all_bytes():
    with pytest.raises(InputError, match=r"tokenize\.vocab_size \(100\) must be at least 258"):
        resolve("a.txt", "tiny", {"tokenize.vocab_size": 100})
