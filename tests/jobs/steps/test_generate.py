"""The generate step: samples, files, and what it reuses."""

import json
import pickle

import pytest

from jobs.engine.inline import InlineEngine
from jobs.errors import InputError
from jobs.generation.sample_batches import load_inference
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.model_io.archive import pack
from jobs.model_io.folder import save_model
from jobs.steps import generate
from tests.support.handmade import make_run, train_tokenizer


@pytest.fixture
def place(tmp_path):
    return Lake(tmp_path.as_uri())


class PartitionedEngine(InlineEngine):
    """An engine with several processes, simulated: each loads the model again, and the last one runs first."""

    def __init__(self, partitions):
        self.partitions = partitions

    def map(self, function, items, description):
        results = {}
        for first in reversed(range(self.partitions)):
            load_inference.cache_clear()
            function = pickle.loads(pickle.dumps(function))
            mine = list(enumerate(items))[first :: self.partitions]
            results |= {index: pickle.loads(pickle.dumps(function(item))) for index, item in mine}
        return [results[index] for index in range(len(items))]


def save_random_model(run, config, tokenizer, seed):
    shape = DataShape(tokenizer.vocab_size, 16, tokenizer.end_of_text)
    save_model(run.model, build_model(config.model, shape, seed), tokenizer)


def make(place, name, engine=None, **settings):
    defaults = {"generate__prompts": ["The man starts with", "", "Night"], "generate__num_samples": 18}
    run, config = make_run(place, name, **defaults | settings)
    tokenizer = train_tokenizer()
    save_random_model(run, config, tokenizer, seed=1)
    stats = generate.run(run, config, engine or InlineEngine(), lambda _: None)
    rows = [json.loads(line) for line in store.read_bytes(run.generate + "/samples.jsonl").splitlines()]
    return run, config, stats, rows


def test_samples_do_not_depend_on_the_number_of_tasks(place):
    settings = {"generate__max_new_tokens": 8, "generate__num_samples": 50}
    made = [make(place, f"of {n}", PartitionedEngine(n), **settings) for n in (1, 2, 5)]
    run, config, stats, rows = made[0]
    assert [(row["prompt_index"], row["sample"]) for row in rows] == [(p, s) for p in range(3) for s in range(50)]
    assert all(1 <= len(row["tokens"]) <= 8 and row["log_probability"] < 0 for row in rows)
    assert rows[0]["settings"] == {
        "max_new_words": 2, "min_new_words": None, "max_new_tokens": 8,
        "temperature": 0.8, "top_k": 50, "top_p": None, "min_p": None,
        "repetition_penalty": 1.0, "stop": [], "dtype": "float32",
    }  # fmt: skip
    assert stats["num_samples"] == 150
    assert stats["num_tokens"] == sum(len(row["tokens"]) for row in rows)
    assert stats["first_sample"] == rows[0]["text"]
    contents = {store.read_bytes(run.generate + "/samples.jsonl") for run, *_ in made}
    assert len(contents) == 1
    text = store.read_bytes(run.generate + "/generated.txt").decode()
    assert "[18] The man starts with" + rows[17]["text"] in text
    again = generate.run(run, config, None, lambda _: None)  # no engine: nothing is generated
    assert again == stats | {"reused": True}


def test_a_run_that_uses_a_model_makes_the_samples_of_the_run_that_trained_it(place):
    trained, _, _, rows = make(place, "trained", generate__max_new_tokens=8)
    contents = {
        name: store.read_bytes(f"{trained.model}/{name}") for name in ("_manifest.json", *names_in(trained.model))
    }
    store.write_bytes(trained.model_archive, pack(contents))
    for number, name in enumerate(("trained", trained.model, trained.model_archive)):
        run, config = make_run(
            place, f"use {number}", use__model=name, generate__max_new_tokens=8, generate__num_samples=18,
            generate__prompts=["The man starts with", "", "Night"], promotion__canaries=["The end"],
        )  # fmt: skip
        stats = generate.run(run, config, InlineEngine(), lambda _: None)
        assert store.read_bytes(run.samples) == store.read_bytes(trained.samples)
        assert (stats["used_model"], stats["num_samples"]) == (name, len(rows))
        assert stats["used_model_uri"] in (trained.model, trained.model_archive)
        assert stats["used_model_sha256"] == store.read_manifest(trained.model).fingerprint
        assert generate.run(run, config, None, lambda _: None) == stats | {"reused": True}
        assert not store.exists(run.model)


def names_in(folder):
    return [entry.name for entry in store.read_manifest(folder).files]


def test_prompts_come_from_a_file_in_the_lake(place):
    uri = place.uri + "/prompts.jsonl"
    store.write_bytes(uri, '{"prompt": "Nächte"}\n\n{"prompt": "", "id": 3}\n'.encode())
    rows = make(place, "file", generate__prompts_file=uri, generate__num_samples=1, generate__max_new_tokens=3)[3]
    assert [(row["prompt_index"], row["prompt"]) for row in rows] == [(0, "Nächte"), (1, "")]


def test_a_row_has_the_number_of_dropped_prompt_tokens(place):
    rows = make(place, "long", generate__prompts=["night and day " * 20], generate__num_samples=2)[3]
    assert [row["prompt_tokens_dropped"] > 50 for row in rows] == [True, True]
    assert {row["finish"] for row in rows} <= {"max_new_words", "max_new_tokens", "end_of_text"}


def test_samples_end_after_max_new_words(place):
    rows = make(place, "words", generate__max_new_words=2)[3]
    assert all(len(row["text"].split()) <= 3 for row in rows)  # the first may continue the prompt's last word
    assert any(len(row["text"].split()) == 2 for row in rows)


def test_samples_of_another_model_are_replaced(place):
    run, config, _, rows = make(place, "again", generate__max_new_tokens=8)
    tokenizer = train_tokenizer()
    save_random_model(run, config, tokenizer, seed=2)
    stats = generate.run(run, config, InlineEngine(), lambda _: None)
    assert stats["first_sample"] != rows[0]["text"]


def test_without_a_model_the_error_names_the_train_step(place):
    run, config = make_run(place)
    with pytest.raises(InputError, match="no model here; run the train step first"):
        generate.run(run, config, InlineEngine(), lambda _: None)
