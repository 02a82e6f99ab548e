"""Files of token ids are read in their order, dictionaries with a warning; texts are refused."""

import pytest

from jobs.config import resolve
from jobs.datasets.shards import TokenShard
from jobs.errors import InputError
from jobs.lake.uri import join, to_uri
from tests.jobs.datasets.test_reuse import shards
from tests.support.datasets import Pipeline, write_corpus

SEQUENCE = b"the,[5],9\r\nman,[12, 7],2\nstarts,[3],1\nthe,[5],9\n"


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


def test_a_dictionary_is_read_in_the_order_of_the_file_with_a_warning(tmp_path, caplog):
    """The sorted list of an earlier pipeline, long enough for several byte ranges and tasks."""
    lines = [f"word{number:05d},[{number * 7 % 997}, {number}],1" for number in range(2000)]
    pipeline, stats = make(tmp_path, "\n".join(lines).encode(), tokenize__vocab_size=5000)
    ids = [found for number in range(2000) for found in (str(number * 7 % 997), str(number))]
    tokenizer, (entry,) = pipeline.tokens.read_tokenizer(), pipeline.tokens.shards
    stream = TokenShard.open(pipeline.tokens.uri, entry).ids
    assert tokenizer.decode(stream[:-1]).split() == ids
    assert (stats["num_dictionary_files"], stats["num_tokens"]) == (1, len(ids) + 1)
    assert "part-r-00000.txt: a dictionary, not a text: its words are sorted and distinct" in caplog.text


@pytest.mark.parametrize(
    ("data", "settings", "reason"),
    [
        (b"1 2 3\n\nsome words\n", {}, r"non-empty line 2 \('some words'\) holds no ids"),
        (SEQUENCE.decode().encode("utf-16"), {}, r"it looks like UTF-16; convert it to UTF-8"),
        (SEQUENCE.decode().encode("utf-16-le"), {}, r"it looks like UTF-16-LE; convert it to UTF-8"),
        (b"\x1f\x8b\x08" + SEQUENCE, {}, r"its content is gzip, not text"),
        (SEQUENCE, {"tokenize__input": "text"}, r"not text; set tokenize\.input=ids"),
    ],
)
def test_texts_are_refused(tmp_path, data, settings, reason):
    with pytest.raises(InputError, match=reason):
        make(tmp_path, data, **settings)


def test_each_id_is_one_token():
    with pytest.raises(InputError, match=r"tokenize\.input=ids needs tokenize\.kind=word"):
        resolve("a.txt", "tiny", {"tokenize.input": "ids"})
