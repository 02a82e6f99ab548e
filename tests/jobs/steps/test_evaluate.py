"""The evaluate step: the losses of a model on whole documents of any text, in any format."""

import gzip
import json
import math

import pytest
import torch

from jobs.config import resolve
from jobs.errors import DamagedError, InputError
from jobs.evaluation import documents as scored
from jobs.evaluation.losses import score_texts
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import join, relative_name
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.model_io.folder import load_model, save_model
from jobs.steps import evaluate
from tests.support.datasets import TravelEngine, write_corpus
from tests.support.handmade import TEXT, TINY_MODEL, train_tokenizer

PARAGRAPHS = [text.strip() for text in TEXT.split("\n\n") if text.strip()][:60]
PLAIN = "\n\n".join(PARAGRAPHS).encode()


def with_model(lake_uri, kind="transformer"):
    """Write a model folder of one of the kinds, and return its place."""
    tokenizer, place = train_tokenizer(), join(lake_uri, "foreign", kind)
    config = resolve("none", "tiny", {**TINY_MODEL, "model.kind": kind, "model.hidden_sizes": [24]})
    save_model(place, build_model(config.model, DataShape(tokenizer.vocab_size, 16, tokenizer.end_of_text)), tokenizer)
    return place


def run(lake_uri, corpus, model, run_id="use", engine=None, **settings):
    """Evaluate a model, and return the run, its statistics, and the lines of its files in their order."""
    values = {key.replace("__", "."): value for key, value in settings.items()}
    config = resolve(corpus, "tiny", {"use.model": model, "use.task": "evaluate", **values})
    evaluated = Lake(lake_uri).run(run_id)
    stats = evaluate.run(evaluated, config, engine or TravelEngine(), lambda _: None)
    files = store.read_manifest(evaluated.evaluation).files
    lines = [json.loads(line) for entry in files for line in store.read_file(evaluated.evaluation, entry).splitlines()]
    return evaluated, stats, lines


@pytest.mark.parametrize("kind", ["transformer", "context_mlp", "embedding_regression"])
def test_each_document_is_scored_whole_by_the_models_own_measure(anywhere, kind):
    model = with_model(anywhere, kind)
    corpus = write_corpus(join(anywhere, "texts"), {"a.txt": PLAIN})
    evaluated, stats, lines = run(anywhere, corpus, model)
    loaded, tokenizer = load_model(model)
    assert [line["loss"] for line in lines] == pytest.approx(score_texts(PARAGRAPHS, loaded, tokenizer))
    assert [PLAIN[line["offset"] :][: line["bytes"]].decode() for line in lines] == PARAGRAPHS
    assert {line["source"] for line in lines} == {"a.txt"}
    per_byte = sum(line["loss"] for line in lines) / sum(len(text.encode()) for text in PARAGRAPHS)
    assert stats["text_loss_per_byte"] == pytest.approx(per_byte)
    is_text = kind != "embedding_regression"
    assert stats["loss_unit"] == ("nats" if is_text else "squared distance")
    assert stats["text_bits_per_byte"] == (pytest.approx(per_byte / math.log(2)) if is_text else None)
    assert (stats["num_documents"], stats["num_files"]) == (60, 1)
    assert (stats["used_model"], stats["used_model_uri"]) == (model, model)
    assert stats["used_model_sha256"] == store.read_manifest(model).fingerprint
    assert not store.list_files(evaluated.model)


def test_the_formats_and_the_number_of_tasks_do_not_matter(local, monkeypatch):
    model = with_model(local)
    texts = {
        "plain": {"a.txt": PLAIN},
        "packed": {"a.txt.gz": gzip.compress(PLAIN)},
        "records": {"a.jsonl": to_jsonl({"content": text} for text in PARAGRAPHS)},
        "files": {f"{number:02}.txt": text.encode() for number, text in enumerate(PARAGRAPHS)},
    }
    found = {}
    for name, files in texts.items():
        corpus = write_corpus(join(local, name), files)
        settings = {"tokenize__documents": "file"} if name == "files" else {"tokenize__field": "content"}
        found[name] = run(local, corpus, model, f"use {name}", tokenize__split_bytes=4096, **settings)
    assert len(store.read_manifest(found["plain"][0].evaluation).files) > 1
    monkeypatch.setattr(scored, "MOST_ROWS", 7)
    corpus = join(local, "records")
    found["few"] = run(local, corpus, model, "use few", tokenize__field="content", tokenize__documents="record")
    assert len(store.read_manifest(found["few"][0].evaluation).files) == 9
    for _, stats, lines in found.values():
        assert [line["bytes"] for line in lines] == [len(text.encode()) for text in PARAGRAPHS]
        assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in found["plain"][2]])
        assert stats["text_bits_per_byte"] == pytest.approx(found["plain"][1]["text_bits_per_byte"])


def test_a_finished_evaluation_is_not_repeated_and_a_damaged_one_is_named(local):
    model, corpus = with_model(local), write_corpus(join(local, "texts"), {"a.txt": PLAIN})
    evaluated, stats, _ = run(local, corpus, model)
    measured = {"evaluation_seconds", "bytes_per_second"}
    _, again, _ = run(local, corpus, model, engine=NoEngine())
    assert again == {key: value for key, value in stats.items() if key not in measured} | {"reused": True}
    store.delete_file(next(file.uri for file in store.list_files(evaluated.evaluation) if ".jsonl" in file.uri))
    with pytest.raises(DamagedError, match="missing, though the manifest lists it"):
        run(local, corpus, model)


class NoEngine:
    """An engine that runs nothing."""


def test_an_attempt_that_was_cut_off_leaves_no_file_of_its_own(local):
    model, corpus = with_model(local), write_corpus(join(local, "texts"), {"a.txt": PLAIN})
    left = join(Lake(local).run("use").evaluation, "documents-00000-aaaaaaaaaaaa.jsonl")
    store.write_bytes(left, b"{}\n")
    evaluated, _, _ = run(local, corpus, model)
    names = {relative_name(file.uri, evaluated.evaluation) for file in store.list_files(evaluated.evaluation)}
    listed = {entry.name for entry in store.read_manifest(evaluated.evaluation).files}
    assert names == listed | {"_manifest.json"}


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        ({"a.txt": b"\xff\xfe\x00"}, {}, r"a\.txt"),
        ({"a.txt": b" \n"}, {}, r"no text in its 1 file \("),
        ({"a.txt": PLAIN}, {"tokenize__min_document_bytes": 10**6}, r"filters removed every document"),
        ({"a.jsonl": b'{"text": "x"}\n{"txt": "x"}\n'}, {}, r"a\.jsonl"),
    ],
)
def test_a_wrong_text_is_named_and_nothing_is_published(local, files, settings, message):
    corpus = write_corpus(join(local, "texts"), files)
    with pytest.raises(InputError, match=message):
        run(local, corpus, with_model(local), **settings)
    assert store.read_manifest(Lake(local).run("use").evaluation) is None


@pytest.mark.parametrize("settings", [{}, {"use.model": "champion"}])
def test_a_run_that_trains_or_generates_evaluates_nothing(local, settings):
    with pytest.raises(InputError, match=r"use\.model: no model to evaluate"):
        evaluate.run(Lake(local).run("r"), resolve("none", "tiny", settings), TravelEngine(), lambda _: None)


def test_a_loss_that_is_not_finite_is_null_and_so_is_the_mean(local):
    model = with_model(local)
    loaded, tokenizer = load_model(model)
    with torch.no_grad():
        loaded.embeddings[tokenizer.encode("\u6f22").tolist()[0]] = math.nan
    save_model(model, loaded, tokenizer)
    corpus = write_corpus(join(local, "texts"), {"a.txt": PLAIN})
    _, stats, lines = run(local, corpus, model)
    assert {line["loss"] for line in lines} == {None}
    assert (stats["text_loss_per_byte"], stats["text_bits_per_byte"]) == (None, None)
    assert stats["num_documents"] == 60
