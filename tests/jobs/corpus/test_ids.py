"""Files of token ids are read if the ids are in the order of a text; dictionaries and texts are refused."""

import pytest

from jobs.config import resolve
from jobs.errors import InputError
from jobs.lake.uri import join, to_uri
from tests.jobs.datasets.test_reuse import shards
from tests.support.datasets import Pipeline, write_corpus

SEQUENCE = b"the,[5],9\r\nman,[12, 7],2\nstarts,[3],1\nthe,[5],9\n"
DICTIONARY = b"apple,[4],2\nman,[12, 7],2\nthe,[5],9\n"


def make(tmp_path, data, **settings):
    lake_uri = to_uri(str(tmp_path))
    corpus = write_corpus(join(lake_uri, "corpus"), {"part-r-00000.txt": data})
    settings = {"tokenize__input": "ids", "tokenize__kind": "word", **settings}
    pipeline = Pipeline(lake_uri, corpus, **settings)
    return pipeline, pipeline.tokenize()


@pytest.mark.parametrize(
    ("data", "ids"),
    [(SEQUENCE, "5 12 7 3 5"), (b"12 7 99\n5\n", "12 7 99 5"), (b"[1, 2, 3], 4;5", "1 2 3 4 5"), (b"3,[1],2\n", "1")],
)
def test_ids_in_the_order_of_a_text_are_read(tmp_path, data, ids):
    pipeline, stats = make(tmp_path, data)
    tokenizer = pipeline.tokens.read_tokenizer()
    assert stats["num_tokens"] == len(ids.split()) + 1
    assert stats["vocab_size"] == len(set(ids.split())) + 2
    assert tokenizer.decode(tokenizer.encode(ids)) == ids
    assert len(shards(pipeline)[0]) == 1


@pytest.mark.parametrize(
    ("data", "settings", "reason"),
    [
        (DICTIONARY, {}, "a dictionary, not a text: its 3 words are sorted and distinct"),
        (b"1 2 3\n\nsome words\n", {}, r"non-empty line 2 \('some words'\) holds no ids"),
        (SEQUENCE, {"tokenize__input": "text"}, r"not text; set tokenize\.input=ids"),
    ],
)
def test_dictionaries_and_texts_are_refused(tmp_path, data, settings, reason):
    with pytest.raises(InputError, match=reason):
        make(tmp_path, data, **settings)


def test_each_id_is_one_token():
    with pytest.raises(InputError, match=r"tokenize\.input=ids needs tokenize\.kind=word"):
        resolve("a.txt", "tiny", {"tokenize.input": "ids"})
