"""Forgotten documents: in no token, vocabulary, evaluation set or loss of later runs, whatever file they are in."""

import gzip
import json

import pytest

from jobs.corpus.texts import Texts
from jobs.datasets.shards import TokenShard
from jobs.errors import InputError
from jobs.evaluation.frozen import grow
from jobs.lake.forgotten import forget
from jobs.lake.layout import Lake
from jobs.lake.uri import join
from tests.jobs.steps.test_score import SMALL, frozen_texts
from tests.support.datasets import Pipeline, TravelEngine, write_corpus
from tests.support.growing import Nights, lines, texts_of

SECRET = "The zebra's code is zyzzyva."
TEXTS = ["A man sings.", SECRET, "A woman answers him.", "They go home."]
FILES = {
    "a.txt": "\n\n".join(TEXTS).encode(),
    "b.txt.gz": gzip.compress("\n\n".join(TEXTS[:2]).encode()),
    "c.jsonl": b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS),
}


def hash_of(text):
    return int(Texts.of([text.encode()]).hashes()[0])


def decoded(pipeline):
    """Return the text of all tokens of a run."""
    tokens, tokenizer = pipeline.tokens, pipeline.tokens.read_tokenizer()
    shards = [TokenShard.open(tokens.uri, entry) for entry in tokens.shards]
    return "\n".join(tokenizer.decode(shard.ids.tolist()) for shard in shards)


@pytest.mark.parametrize("kind", ["bpe", "word"])
@pytest.mark.parametrize("duplicates", [False, True])
def test_a_forgotten_document_is_in_no_token_and_in_no_vocabulary(local, kind, duplicates):
    corpus = write_corpus(join(local, "texts"), FILES)
    settings = {"tokenize__kind": kind, "tokenize__drop_duplicates": duplicates}
    before = Pipeline(local, corpus, "before", **settings)
    assert before.tokenize()["num_forgotten_documents"] == 0
    assert "zyzzyva" in decoded(before)
    forget(Lake(local), [hash_of(SECRET)], "ann", "a test")
    after = Pipeline(local, corpus, "after", **settings)
    stats = after.tokenize()
    assert stats["num_forgotten_documents"] == 3
    assert stats["num_documents"] == (3 if duplicates else 7)
    assert "zyzzyva" not in decoded(after)
    if kind == "word":
        assert b"zyzzyva" not in after.tokens.read_tokenizer().json
    again = Pipeline(local, corpus, "again", **settings)
    assert again.tokenize()["reused"]
    assert again.datasets["tokens"] == after.datasets["tokens"] != before.datasets["tokens"]


def test_a_corpus_of_forgotten_documents_alone_is_one_line(local):
    corpus = write_corpus(join(local, "texts"), {"a.txt": SECRET.encode()})
    forget(Lake(local), [hash_of(SECRET)], "ann", "a test")
    with pytest.raises(InputError, match="give more text if the documents are forgotten"):
        Pipeline(local, corpus).tokenize()


def test_the_evaluation_set_loses_what_is_forgotten_and_nothing_else(local):
    nights = Nights(local, **SMALL)
    nights.write(a=lines(0), b=lines(50))
    night = nights.run()
    grow(night.run, night.config, night.tokens, TravelEngine())
    version, before = frozen_texts(local)
    gone, trained = before[3], min(texts_of(night.run, "train"))
    forget(Lake(local), [gone.hash, hash_of(trained)], "ann", "a test")
    for _ in range(2):
        night = nights.run()
        grow(night.run, night.config, night.tokens, TravelEngine())
        later, after = frozen_texts(local)
        assert int(later) > int(version)
        assert gone.document not in {document.document for document in after}
        assert {document.document for document in before} - {gone.document} <= {each.document for each in after}
    left = texts_of(night.run, "train") | texts_of(night.run, "valid")
    assert not {gone.text, trained} & left
    assert len(left) > 40
