"""Text from a model that has learned a cycle by heart."""

import os

import numpy as np
import pytest
import torch

from jobs.engine.inline import InlineEngine
from jobs.generation.continuation import GenerationSettings, end_of_words
from jobs.generation.decoder import InferenceLlama
from jobs.generation.generate import Request, generate
from jobs.generation.sampling import Sampling
from jobs.lake.layout import Lake
from jobs.model_io.folder import load_model
from jobs.steps import train
from tests.support.handmade import make_datasets, make_run, train_tokenizer

GREEDY = Sampling(temperature=0)
WORDS = "abc def ghi jkl mno pqr stu vwx "


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose model knows one sentence, which follows itself for ever."""
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "cpu_count", lambda: 1)
    place = Lake(tmp_path_factory.mktemp("lake").as_uri())
    tokenizer = train_tokenizer(WORDS * 50, vocab_size=280)
    make_datasets(place, tokenizer, WORDS * 100)
    run, config = make_run(place, train__epochs=40, train__warmup_steps=10)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    patch.undo()
    return run, stats


@pytest.fixture(scope="module")
def model_and_tokenizer(trained):
    return load_model(trained[0].model)


def one(pair, prompt, settings):
    model, tokenizer = pair
    return generate(InferenceLlama(model), tokenizer, [Request(prompt)], settings).samples[0]


def random_model(model):
    """Weights that make flat distributions, so that draws differ."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_a_cycle_is_learned_by_heart_and_generated(trained, model_and_tokenizer):
    _, stats = trained
    assert stats["valid_loss"] < 0.1
    assert stats["valid_accuracy"] > 0.98
    assert stats["unigram_loss"] > 2
    settings = GenerationSettings(sampling=GREEDY, max_new_words=30)
    text = one(model_and_tokenizer, "abc def", settings).text
    assert text == (WORDS * 4).removeprefix("abc def")[: len(text)]
    assert len(text.split()) == 30


def test_a_continuation_goes_on_when_the_context_is_full(model_and_tokenizer):
    model, _ = model_and_tokenizer
    sample = one(model_and_tokenizer, "abc def", GenerationSettings(sampling=GREEDY, max_new_tokens=100))
    assert len(sample.tokens) == 100 > 6 * model.config.num_positions
    assert sample.text == (WORDS * 12).removeprefix("abc def")[: len(sample.text)]
    assert np.exp(sample.log_probabilities).min() > 0.5


def test_a_prompt_longer_than_the_context_keeps_its_last_tokens_and_says_so(model_and_tokenizer, caplog):
    _, tokenizer = model_and_tokenizer
    prompt = "999 " * 20 + WORDS * 3
    sample = one(model_and_tokenizer, prompt, GenerationSettings(sampling=GREEDY, max_new_words=4))
    assert sample.text == "abc def ghi jkl"
    assert sample.prompt_tokens_dropped == len(tokenizer.encode(prompt)) - 16
    assert f"the first {sample.prompt_tokens_dropped} tokens are ignored" in caplog.text


def test_an_empty_prompt_starts_from_end_of_text(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    sample = one((model, tokenizer), "", GenerationSettings(sampling=GREEDY, max_new_tokens=1))
    with torch.no_grad():
        expected = model(torch.tensor([[tokenizer.end_of_text]]))[0, -1]
    assert sample.tokens == [expected.argmax().item()]
    assert sample.log_probabilities[0] == pytest.approx(expected.log_softmax(0).max().item(), abs=1e-5)


def test_end_of_text_ends_a_sample(model_and_tokenizer):
    model, tokenizer = load_again(model_and_tokenizer)
    with torch.no_grad():
        model.model.norm.weight.zero_()
        model.output_weight.zero_()
    tokenizer.end_of_text = 0  # with equal logits the first token is the likeliest
    sample = one((model, tokenizer), "the", GenerationSettings(sampling=GREEDY))
    assert (sample.text, sample.tokens) == ("", [0])


def load_again(pair):
    model, tokenizer = pair
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    return copy, type(tokenizer)(tokenizer.json)


def test_samples_depend_on_seed_prompt_and_sample_alone(model_and_tokenizer):
    model, tokenizer = load_again(model_and_tokenizer)
    random_model(model)

    def texts(seed=0, prompt_index=0, samples=range(5)):
        sampling = Sampling(repetition_penalty=1.1)
        settings = GenerationSettings(max_new_tokens=20, sampling=sampling, seed=seed)
        requests = [Request("the", prompt_index, sample) for sample in samples]
        return [sample.text for sample in generate(InferenceLlama(model), tokenizer, requests, settings).samples]

    together = texts()
    assert len(set(together)) == 5
    assert [texts(samples=range(index, index + 1))[0] for index in range(5)] == together
    assert not set(texts(seed=1)) & set(together)
    assert not set(texts(prompt_index=1)) & set(together)


def test_prompts_of_different_lengths_share_a_batch(model_and_tokenizer):
    """Also when contexts are full at different times."""
    model, tokenizer = load_again(model_and_tokenizer)
    random_model(model)
    prompts = ["", "abc", WORDS[:9], WORDS * 3, "999 mno"]
    settings = GenerationSettings(
        max_new_tokens=60, sampling=Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.3)
    )
    requests = [Request(prompt, index) for index, prompt in enumerate(prompts)]
    together = generate(InferenceLlama(model), tokenizer, requests, settings).samples
    alone = [generate(InferenceLlama(model), tokenizer, [each], settings).samples[0] for each in requests]
    assert [sample.tokens for sample in together] == [sample.tokens for sample in alone]
    assert len({tuple(sample.tokens) for sample in together}) == len(prompts)
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.log_probabilities == pytest.approx(theirs.log_probabilities, abs=1e-4)


def test_a_repetition_penalty_spares_what_was_not_said(model_and_tokenizer):
    model, tokenizer = load_again(model_and_tokenizer)
    pair = random_model(model), tokenizer
    settings = GenerationSettings(max_new_tokens=40, sampling=Sampling(temperature=0, repetition_penalty=1e6))
    tokens = one(pair, "abc", settings).tokens
    assert len({*tokens, *tokenizer.encode("abc").tolist()}) == len(tokens) + len(tokenizer.encode("abc"))


@pytest.mark.parametrize(
    ("stop", "text", "finish"),
    [((" jkl",), " ghi", "stop"), (("xyz", "hi"), " g", "stop"), (("xyz",), " ghi jkl mno pqr", "max_new_words")],
)
def test_text_ends_before_a_stop_string(model_and_tokenizer, stop, text, finish):
    sample = one(model_and_tokenizer, "abc def", GenerationSettings(max_new_words=4, sampling=GREEDY, stop=stop))
    assert (sample.text, sample.finish) == (text, finish)


@pytest.mark.parametrize(
    ("prompt", "text", "num_words", "kept"),
    [
        ("The man", " starts with nothing ", 2, " starts with"),
        ("The man ", "starts with nothing", 2, "starts with"),
        ("The man", " starts with", 2, None),
        ("The ma", "n starts with no", 2, "n starts with"),
        ("The man", ", who starts", 1, ", who"),
        ("", " one two", 1, " one"),
        ("", "\none\n\ntwo\n", 2, "\none\n\ntwo"),
        ("a", "b", 1, None),
    ],
)
def test_words_are_complete_when_a_space_follows(prompt, text, num_words, kept):
    end = end_of_words(prompt, text, num_words)
    assert (text[:end] if end is not None else None) == kept
