"""The embed step after the tokenize step: the vectors that it trains, and the files that it writes."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.embeddings.files import read_embeddings, token_names
from jobs.embeddings.uses import Neighbours, find_token
from jobs.engine.inline import InlineEngine
from jobs.errors import DamagedError, InputError
from jobs.lake.store import list_files, local_path, read_bytes, read_manifest, write_bytes
from jobs.lake.uri import join, to_uri
from jobs.steps import embed
from tests.support.datasets import Pipeline, TravelEngine, write_corpus
from tests.support.slots import CLASSES, text_of_slots

pytestmark = pytest.mark.slow

SETTINGS = {"embed__size": 16, "embed__epochs": 2, "embed__sync_tokens": 10_000, "embed__subsample": 0}


class EmbedPipeline(Pipeline):
    """The tokenize and embed steps of one run."""

    def embed(self, engine=None):
        return embed.run(self.run, self.config, engine or TravelEngine(), self.lines.append)

    @property
    def folder(self):
        return self.lake.dataset("embeddings", self.datasets["embeddings"])


def make(lake_uri, **settings):
    corpus = write_corpus(join(lake_uri, "corpus"), {"a.txt": text_of_slots().encode()})
    pipeline = EmbedPipeline(lake_uri, corpus, tokenize__vocab_size=600, **{**SETTINGS, **settings})
    pipeline.tokenize()
    return pipeline


@pytest.fixture(params=["file", "s3"])
def lake_uri(request, tmp_path, s3_uri, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return s3_uri if request.param == "s3" else to_uri(str(tmp_path / "my läke"))


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The embeddings of the text of slots, in a local lake."""
    pipeline = make(to_uri(str(tmp_path_factory.mktemp("learned"))))
    return pipeline, pipeline.embed()


def test_words_of_the_same_slots_are_neighbours(learned):
    pipeline, stats = learned
    tokenizer = pipeline.tokens.read_tokenizer()
    neighbours = Neighbours(read_embeddings(pipeline.folder))
    names = token_names(tokenizer.json)
    for name, members in CLASSES.items():
        tokens = {find_token(word, tokenizer.encode, names, neighbours) for word in members.split()}
        for token in tokens:
            assert {other for other, _ in neighbours.nearest(token, 3)} == tokens - {token}, name
    king, queen, the = (find_token(word, tokenizer.encode, names, neighbours) for word in ("captain", "sailor", "the"))
    assert neighbours.cosine(king, queen) > neighbours.cosine(king, the)
    with pytest.raises(InputError, match="'xyzzy' is not one token with a vector"):
        find_token("xyzzy", tokenizer.encode, names, neighbours)
    assert 0 < stats["embed_loss"] < 6 * np.log(2)  # the loss of vectors of zeros


def test_files_of_the_dataset(learned):
    pipeline, stats = learned
    manifest = read_manifest(pipeline.folder)
    assert {entry.name.rpartition(".")[2] for entry in manifest.files} == {"csv", "parquet", "json"}
    table = pq.read_table(next(local_path(pipeline.folder).glob("*.parquet")))
    read = read_embeddings(next(local_path(pipeline.folder).glob("*.csv")))
    assert table.column_names == ["token", "id", "count", "vector"]
    assert table.column("token").to_pylist() == read.tokens
    assert table.column("id").to_pylist() == read.ids.tolist() == sorted(read.ids.tolist())
    assert np.array_equal(np.array(table.column("vector").to_pylist(), np.float32), read.vectors)  # bit for bit
    assert read.vectors.shape == (stats["num_vectors"], 16)
    assert min(table.column("count").to_pylist()) >= 5
    tokenizer = pipeline.tokens.read_tokenizer()
    assert tokenizer.end_of_text not in read.ids
    assert all(tokenizer.decode([i]).strip() == name.strip("Ġ") for i, name in zip(read.ids, read.tokens, strict=True))
    assert any("round 1 of" in line for line in pipeline.lines)


@pytest.mark.long
def test_an_existing_dataset_is_reused_and_a_damaged_one_refused(lake_uri):
    pipeline = make(lake_uri, embed__epochs=1)
    stats = pipeline.embed()
    before = list_files(join(lake_uri, "datasets"))
    again = embed.run(pipeline.run, pipeline.config, TravelEngine(), pipeline.lines.append)
    assert again["reused"]
    assert {**again, "reused": False}.items() <= stats.items()
    assert list_files(join(lake_uri, "datasets")) == before
    (csv_file,) = (info.uri for info in list_files(pipeline.folder) if info.uri.endswith(".csv"))
    write_bytes(csv_file, read_bytes(csv_file)[:-1])
    with pytest.raises(DamagedError, match="the manifest says"):
        pipeline.embed()


def test_vectors_depend_on_the_seed_and_the_number_of_workers(tmp_path):
    vectors = {}
    for name, settings in {
        "one": {},
        "other seed": {"embed__seed": 2},
        "more workers": {"embed__workers": 5},
        "again": {},
    }.items():
        pipeline = make(to_uri(str(tmp_path / name)), **settings)
        pipeline.embed(InlineEngine())
        vectors[name] = read_embeddings(pipeline.folder).vectors
    assert np.allclose(vectors["one"], vectors["again"], atol=1e-5)
    assert not np.allclose(vectors["one"], vectors["other seed"], atol=0.1)
    assert not np.allclose(vectors["one"], vectors["more workers"], atol=0.01)


def test_too_few_tokens_and_missing_tokens_are_refused(tmp_path):
    pipeline = make(to_uri(str(tmp_path)), embed__min_count=1_000_000)
    with pytest.raises(InputError, match=r"0 different tokens occur at least embed\.min_count=1000000 times"):
        pipeline.embed()
    assert "embeddings" not in pipeline.datasets
    fresh = EmbedPipeline(to_uri(str(tmp_path)), "corpus", run_id="fresh")
    with pytest.raises(InputError, match="run its tokenize step first"):
        fresh.embed()
