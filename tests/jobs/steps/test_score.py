"""The score step: a frozen set that no night trains on, and the losses of a run's model and the champion on it."""

import hashlib
import json
import math
import re

import numpy as np
import pytest
import torch

from jobs.config import SparkConfig
from jobs.datasets.shards import TokenShard
from jobs.engine.spark import SparkEngine
from jobs.errors import DamagedError, InputError
from jobs.evaluation.frozen import grow, read_latest, read_part
from jobs.evaluation.losses import score_texts
from jobs.lake import store
from jobs.lake.champion import Change, change_champion, read_champion
from jobs.lake.layout import Pipeline as PipelineFolders
from jobs.lake.uri import join
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.model_io.folder import load_model, save_model
from jobs.results.scores import read_scores
from jobs.steps import score, windows
from tests.support.datasets import TravelEngine
from tests.support.growing import Nights, edited, line, lines, texts_of

SIZE = 16
SMALL = {"model__num_layers": 1, "model__embedding_size": 16, "model__hidden_size": 24, "model__num_heads": 2,
         "model__num_kv_heads": 1, "model__hidden_sizes": [24], "promotion__documents": 20}  # fmt: skip


def with_model(night, seed=1, std=0.3):
    """Give a night a model with random weights."""
    tokenizer = night.tokens.read_tokenizer()
    shape = DataShape(tokenizer.vocab_size, SIZE, tokenizer.end_of_text)
    model = build_model(night.config.model, shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std, generator=generator)
    save_model(night.run.model, model, tokenizer)
    return night


def run(night, engine=None):
    said = []
    stats = score.run(night.run, night.config, engine or TravelEngine(), said.append)
    return stats, read_scores(night.run), said[-1]


def promote(night, pipeline="default"):
    """Make the model of a night the champion."""
    model = store.read_manifest(night.run.model).fingerprint
    for entry in store.list_files(night.run.model):
        store.copy(entry.uri, join(night.lake.models, model, entry.uri.rpartition("/")[2]))
    folders = PipelineFolders(night.lake.uri, pipeline)
    before, version = read_champion(folders)
    change = Change("promoted", model, night.run.folder, "2026-11-26T00:00:00Z", "test", "test")
    assert change_champion(folders, before, version, change)


def frozen_texts(local):
    frozen = read_latest(PipelineFolders(local))
    return frozen.version, [document for entry in frozen.parts for document in read_part(frozen.uri, entry)]


@pytest.fixture
def nights(local):
    nights = Nights(local, **SMALL)
    nights.write(a=lines(0), b=lines(50))
    return nights


def test_no_night_ever_trains_on_a_document_of_the_set(local):
    nights = Nights(local, **SMALL | {"promotion__documents": 60})
    sizes, known, trained = [], [], ""
    for day in range(10):
        texts = [line(1000 * day + 1000 + i, 120) for i in range(40)]
        again = [edited(line(1000 * day + i, 120), 20) for i in range(10)]  # of the day before, nearly
        nights.write(**{f"day-{day}": b"\n".join([*texts, *again])})
        if day == 4:
            nights.delete("day-1")
        if day == 6:
            nights.write(renamed=b"\n".join(line(4000 + i, 120) for i in range(40)))  # the text of day 3
            nights.delete("day-3")
        night = nights.run()
        trained += "\n".join(texts_of(night.run, "train"))
        grow(night.run, night.config, night.tokens, TravelEngine())
        _, documents = frozen_texts(local)
        assert documents[: len(known)] == known  # growth adds, nothing moves
        known = documents
        sizes.append(len(documents))
        for document in documents:
            assert document.document == hashlib.sha256(document.text.encode()).hexdigest()
            assert document.text not in trained
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[3] < sizes[-1] == 60
    assert len({document.document for document in known}) == 60
    seeds = re.compile(r"\W+")
    assert not {tuple(seeds.split(document.text)[:5]) for document in known} & {
        tuple(seeds.split(text)[:5]) for text in trained.split("\n")
    }  # nor on one that is nearly equal


def test_nearly_equal_documents_count_once(local):
    nights = Nights(local, **SMALL | {"promotion__documents": 1000})
    texts = [line(seed, 120) for seed in range(40)]
    nights.write(a=b"\n".join(texts), b=b"\n".join(edited(text, 50) for text in texts), c=b"\n".join(texts))
    night = nights.run()
    grow(night.run, night.config, night.tokens, TravelEngine())
    _, documents = frozen_texts(local)
    beginnings = [document.text[:100] for document in documents]
    assert len(set(beginnings)) == len(beginnings) == night.stats["num_valid_documents"] / 3


@pytest.mark.parametrize(
    "settings", [{"tokenize__documents": "file", "tokenize__max_piece_bytes": 1024}, {"tokenize__normalize_nfc": True}]
)
def test_pieces_and_changed_texts_are_found_again(local, settings):
    nights = Nights(local, **SMALL | settings | {"tokenize__drop_gutenberg": True})
    body = lines(0, 80)
    marks = [b"*** %s OF THE PROJECT GUTENBERG EBOOK X ***\n" % edge for edge in (b"START", b"END")]
    nights.write(a=(marks[0] + body + b"\n" + marks[1]).replace(b"\n", b"\r\n"))
    night = nights.run()
    frozen = grow(night.run, night.config, night.tokens, TravelEngine())
    assert frozen.num_documents >= 12
    assert all(document.text.encode() in body for document in frozen_texts(local)[1])


def test_scores_are_the_losses_of_both_models_on_the_same_documents(nights, local):
    first = with_model(nights.run())
    stats, scores, said = run(first)
    assert (scores.champion, scores.not_compared, scores.unit) == (None, "", "nats")
    assert scores.model == store.read_manifest(first.run.model).fingerprint
    version, documents = frozen_texts(local)
    assert version == scores.evaluation_set == stats["evaluation_set"]
    assert 15 <= len(documents) == len(scores.documents) <= 20
    expected = score_texts([document.text for document in documents], *load_model(first.run.model))
    assert [each.challenger for each in scores.documents] == pytest.approx(expected, rel=1e-5)
    assert all(each.champion is None for each in scores.documents)
    in_bits = sum(expected) / sum(len(document.text.encode()) for document in documents) / math.log(2)
    assert stats["frozen_bits_per_byte"] == pytest.approx(in_bits, rel=1e-5)
    assert "nats per byte" in said

    promote(first)
    nights.write(c=lines(100))
    second = with_model(nights.run(), seed=2, std=0.1)
    stats, scores, _ = run(second)
    assert scores.champion == store.read_manifest(first.run.model).fingerprint
    by_document = dict(zip((each.document for each in documents), expected, strict=True))
    known = [each for each in scores.documents if each.document in by_document]
    assert [each.champion for each in known] == pytest.approx([by_document[each.document] for each in known], rel=1e-5)
    assert stats["frozen_loss_per_byte"] < stats["champion_loss_per_byte"]
    assert json.dumps(stats)


def test_scores_are_reused_for_the_same_model_champion_and_set(nights):
    night = with_model(nights.run())
    _, scores, _ = run(night)
    stats, again, said = run(night)
    assert (stats["reused"], again) == (True, scores)
    assert said == "the scores of this model exist already"
    promote(night)
    stats, compared, _ = run(night)
    assert not stats["reused"]
    assert [each.champion for each in compared.documents] == [each.challenger for each in scores.documents]
    with_model(night, seed=3)
    assert run(night)[1].documents[0].challenger != scores.documents[0].challenger


def test_models_with_other_vocabularies_and_kinds_compare(nights):
    promote(with_model(nights.run()))
    word = {"tokenize__tokenizer": "train", "tokenize__kind": "word", "tokenize__vocab_size": 12}
    night = with_model(nights.make(model__kind="context_attention", **word))
    stats, scores, _ = run(night)
    assert scores.not_compared == ""
    assert all(each.champion for each in scores.documents)
    assert stats["frozen_bits_per_byte"] > 6  # nearly all words are hidden


def test_a_regression_is_compared_only_with_the_same_vectors(nights):
    kind = {"model__kind": "embedding_regression"}
    first = with_model(nights.run(**kind))
    stats, scores, said = run(first)
    assert scores.unit == "squared distance"
    assert "squared distance per byte" in said
    assert stats["frozen_bits_per_byte"] is None
    promote(first)
    assert run(with_model(nights.run(**kind)))[1].not_compared == ""
    model, tokenizer = load_model(first.run.model)
    model.set_embeddings(model.embeddings.flip(0))
    other = nights.run(**kind)
    save_model(other.run.model, model, tokenizer)
    assert run(other)[1].not_compared == "the champion predicts other vectors; set train.init=champion"
    words = with_model(nights.make(tokenize__tokenizer="train", tokenize__vocab_size=300, **kind))
    assert "vectors of another vocabulary" in run(words)[1].not_compared
    _, scores, _ = run(with_model(nights.run()))
    assert scores.not_compared == "the champion's loss is in squared distance, but this model's loss is in nats"
    assert all(each.champion is None and each.challenger for each in scores.documents)


def test_a_champion_that_may_have_trained_on_the_set_is_not_compared(nights, local):
    early = with_model(nights.make(windows__split="auto", promotion__enabled=False))
    promote(early)
    night = with_model(nights.run())
    assert re.match("the champion may have trained .* has windows.split=auto", run(night)[1].not_compared)
    store.delete_file(early.run.config)
    store.delete_folder(night.run.score)
    assert "has no configuration that can be read" in run(night)[1].not_compared
    store.delete_file(PipelineFolders(local).champion)
    promote(night)
    (weights,) = [file for file in store.list_files(night.lake.models) if night_file(file, night)]
    store.write_bytes(weights.uri, b"damaged")
    stats, scores, said = run(night)
    assert "the champion cannot be opened" in scores.not_compared
    assert scores.not_compared in said
    assert stats["champion_loss_per_byte"] is None


def test_a_model_that_descends_from_an_unknown_one_is_not_compared(nights):
    """Training may start from a champion of this pipeline, and from a run with the fixed split, and so on."""
    first = with_model(nights.run())
    promote(first)
    champion, _ = read_champion(PipelineFolders(nights.lake_uri))
    second, third, fourth = (with_model(nights.run(), seed) for seed in (2, 3, 4))

    def started(night, uri):
        store.write_json(join(night.run.train, "start.json"), {"init": uri})
        store.delete_folder(night.run.score)
        return run(night)[1].not_compared

    assert started(second, champion.model_uri) == started(third, second.run.model) == started(third, None) == ""
    auto = with_model(nights.make(windows__split="auto", promotion__enabled=False))
    assert "this model may have trained on the evaluation set: run " in started(third, auto.run.model)
    assert "has windows.split=auto" in started(fourth, third.run.model)
    assert "which is not a model of a known run" in started(fourth, "file:///elsewhere/model")
    assert "belongs to another pipeline" in started(fourth, nights.begin().lake.run("x", "poems").model)


def night_file(file, night):
    return file.uri.endswith(f"{store.read_manifest(night.run.model).fingerprint}/model.safetensors")


def test_a_loss_that_is_not_finite_is_null(nights):
    night = nights.run()
    tokenizer = night.tokens.read_tokenizer()
    model = build_model(night.config.model, DataShape(tokenizer.vocab_size, SIZE, tokenizer.end_of_text))
    with torch.no_grad():
        model.embeddings.fill_(math.nan)
    save_model(night.run.model, model, tokenizer)
    stats, scores, said = run(night)
    assert {each.challenger for each in scores.documents} == {None}
    assert stats["frozen_loss_per_byte"] is None
    assert "not finite" in said


def test_only_runs_with_a_fixed_split_and_a_model_are_scored(nights):
    night = nights.make(windows__split="block")
    with pytest.raises(InputError, match=r"windows.split=block: models are compared only if windows.split=fixed"):
        run(night)
    assert "score" not in night.config.steps
    night = nights.run()
    with pytest.raises(InputError, match="no model here"):
        run(night)
    assert night.config.steps[-1] == "score"
    assert "score" not in nights.begin(promotion__enabled=False).config.steps


def test_a_set_that_does_not_fit_the_split_is_damaged(nights, local):
    night = with_model(nights.run())
    run(night)
    store.delete_folder(PipelineFolders(local).split)
    again = with_model(nights.make(windows__seed=9))
    with pytest.raises(DamagedError, match="not on the validation side"):
        run(again)


class CrashError(Exception):
    pass


def test_a_crash_between_any_two_writes_leaves_a_set_and_scores_or_none(nights, local, monkeypatch):
    night = with_model(nights.run())
    real, left = {name: getattr(store.Store, name) for name in ("write_bytes", "publish", "copy")}, [0]

    def crashing(name):
        def write(self, *arguments):
            if left[0] == 0:
                raise CrashError(arguments)
            left[0] -= 1
            return real[name](self, *arguments)

        return write

    for name in real:
        monkeypatch.setattr(store.Store, name, crashing(name))
        monkeypatch.setattr(store, name, crashing(name).__get__(store.ENVIRONMENT))
    crashes, versions = 0, set()
    for allowed in range(100):
        left[0] = allowed
        try:
            run(night)
        except CrashError:
            crashes += 1
            versions.add(frozen_texts(local)[0])
            assert read_scores(night.run) is None
            continue
        break
    assert crashes >= 2
    assert versions <= {"", "00000001"}
    assert frozen_texts(local)[0] == "00000001"
    assert read_scores(night.run).evaluation_set == "00000001"


def test_two_runs_that_grow_the_set_at_once_lose_nothing(nights, local):
    night = nights.run()

    class Interrupted(TravelEngine):
        others = 1

        def map(self, function, items, description):
            found = super().map(function, items, description)
            if description.startswith("write documents") and self.others:
                self.others = 0
                grow(other.run, other.config, other.tokens, TravelEngine())
            return found

    nights.write(c=lines(100, 80))
    other = nights.run(promotion__documents=40)
    grown = grow(night.run, night.config, night.tokens, Interrupted())
    assert grown == read_latest(PipelineFolders(local))
    assert grown.num_documents > 20


def test_split_set_and_scores_in_s3(anywhere):
    nights = Nights(anywhere, **SMALL)
    nights.write(a=lines(0), b=lines(50))
    promote(with_model(nights.run()))
    nights.write(c=lines(100))
    night = with_model(nights.run(), seed=2)
    stats, scores, _ = run(night)
    assert scores.not_compared == ""
    assert stats["evaluation_set"] == frozen_texts(anywhere)[0] == "00000001"
    assert nights.decisions.number == 2
    assert all(each.champion and each.challenger for each in scores.documents)
    assert run(night)[0]["reused"]


@pytest.mark.long
@pytest.mark.slow
def test_spark_splits_and_scores_as_the_inline_engine_does(nights, local):
    nights.settings["tokenize__split_bytes"] = 4096
    night = with_model(nights.run())
    inline = run(night)[1]
    before, named, decided = frozen_texts(local)[1], night.datasets["windows"], nights.decisions
    hashes = np.concatenate([TokenShard.open(night.tokens.uri, entry).hash for entry in night.tokens.shards])
    sides = decided.sides_of(hashes)
    folders = (night.run.score, *(getattr(PipelineFolders(local), name) for name in ("frozen", "split")))
    for folder in (*folders, night.lake.dataset("windows", named)):
        store.delete_folder(folder)
    engine = SparkEngine(SparkConfig(), master="local[2,4]")
    try:
        windows.run(night.run, night.config, engine, lambda _: None)
        on_spark = run(night, engine)[1]
    finally:
        engine.stop()
    assert night.datasets["windows"] == named
    assert np.array_equal(nights.decisions.sides_of(hashes), sides)
    key = lambda each: each.document  # noqa: E731
    assert sorted(frozen_texts(local)[1], key=key) == sorted(before, key=key)
    for one, other in zip(sorted(on_spark.documents, key=key), sorted(inline.documents, key=key), strict=True):
        assert one.document == other.document
        assert one.challenger == pytest.approx(other.challenger, rel=1e-5)
