"""The generate step."""

import json

import pytest

from jobs import lake
from jobs.engine.inline import InlineEngine
from jobs.errors import InputError
from jobs.model.folder import save_model
from jobs.model.llama import Llama, LlamaConfig
from jobs.paths import Lake
from jobs.steps import generate
from tests.jobs.handmade import make_run, train_tokenizer


@pytest.fixture
def place(tmp_path):
    return Lake(tmp_path.as_uri())


class ShuffledEngine(InlineEngine):
    """Runs tasks in another order, as executors may."""

    def map(self, function, items, description):
        return super().map(function, items[::-1], description)[::-1]


def make(place, name, engine=None, **settings):
    prompts = ["The man starts with", "", "Night"]
    run, config = make_run(place, name, generate__prompts=prompts, generate__num_samples=18, **settings)
    tokenizer = train_tokenizer()
    save_model(run.model, Llama(LlamaConfig.of(config.model, tokenizer.vocab_size, 16), seed=1), tokenizer)
    stats = generate.run(run, config, engine or InlineEngine(), lambda _: None)
    rows = [json.loads(line) for line in lake.read_bytes(run.generate + "/samples.jsonl").splitlines()]
    return run, config, stats, rows


def without_speed(rows):
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]


def test_samples_are_the_same_however_they_are_spread(place):
    run, config, stats, rows = make(place, "one", generate__max_new_tokens=8)
    assert [(row["prompt_index"], row["sample"]) for row in rows] == [(p, s) for p in range(3) for s in range(18)]
    assert all(1 <= len(row["tokens"]) <= 8 and row["log_probability"] < 0 for row in rows)
    assert rows[0]["settings"] == {"max_new_words": 20, "max_new_tokens": 8, "temperature": 0.8, "top_k": 50}
    assert stats["num_samples"] == 54
    assert stats["num_tokens"] == sum(len(row["tokens"]) for row in rows)
    assert stats["first_sample"] == rows[0]["text"]
    assert without_speed(make(place, "two", ShuffledEngine(), generate__max_new_tokens=8)[3]) == without_speed(rows)
    text = lake.read_bytes(run.generate + "/generated.txt").decode()
    assert "[18] The man starts with" + rows[17]["text"] in text
    assert generate.run(run, config, None, lambda _: None) == stats | {
        "reused": True
    }  # no engine: nothing is made again


def test_words_are_counted(place):
    rows = make(place, "words", generate__max_new_words=2)[3]
    assert all(len(row["text"].split()) <= 3 for row in rows)  # the prompt's last word may go on
    assert any(len(row["text"].split()) == 2 for row in rows)


def test_another_model_makes_other_text(place):
    run, config, _, rows = make(place, "again", generate__max_new_tokens=8)
    tokenizer = train_tokenizer()
    save_model(run.model, Llama(LlamaConfig.of(config.model, tokenizer.vocab_size, 16), seed=2), tokenizer)
    stats = generate.run(run, config, InlineEngine(), lambda _: None)
    assert stats["first_sample"] != rows[0]["text"]


def test_without_a_model_there_is_one_clear_line(place):
    run, config = make_run(place)
    with pytest.raises(InputError, match="no model here; run the train step first"):
        generate.run(run, config, InlineEngine(), lambda _: None)
