"""Continuations that join a batch and leave it at different times are those that each would be alone."""

import random

import pytest
import torch

from jobs.generation.batch import Batch, Member
from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.generate import Request, generate
from jobs.generation.inference import to_inference
from jobs.generation.sampling import Sampler, Sampling
from jobs.model.context import ContextConfig, ContextMlp
from tests.support.models import untrained_model

PROMPTS = ("", "the", "a copy of the License at", "Unless required by applicable law or agreed to in writing, " * 2)
SAMPLINGS = (
    Sampling(temperature=0),
    Sampling(temperature=0, repetition_penalty=1.5),
    Sampling(top_k=20, repetition_penalty=1.2),
    Sampling(temperature=1.3, top_p=0.9, min_p=0.01),
)


def context_model():
    _, tokenizer = untrained_model()
    torch.manual_seed(3)
    model = ContextMlp(ContextConfig(tokenizer.vocab_size, 4, tokenizer.end_of_text, 16, (32,)))
    with torch.no_grad():
        model.output_weight.normal_(std=0.5)
    return model.eval(), tokenizer


def settings_of(number):
    """Return different settings for each number: greedy and random, with and without stop strings."""
    limits = {"max_new_tokens": 1 + 7 * number % 60} if number % 4 else {"max_new_words": 5, "min_new_words": 3}
    stop = ("e", "th") if number % 3 == 0 else ()
    return GenerationSettings(
        sampling=SAMPLINGS[number % 5 % 4], stop=stop, seed=number, num_likeliest=number % 3, **limits
    )


def member_of(number, model, tokenizer):
    prompt, settings = PROMPTS[number % len(PROMPTS)], settings_of(number)
    context = tokenizer.encode(prompt).tolist()[-model.num_positions :] or [tokenizer.end_of_text]
    return Member(Continuation(prompt), context, settings, Sampler(settings.sampling, [(settings.seed, 0, 0)]))


@pytest.mark.parametrize("make", [untrained_model, context_model])
def test_continuations_do_not_depend_on_when_they_join_and_leave(make):
    trained, tokenizer = make()
    model, rng = to_inference(trained), random.Random(5)
    expected = [
        generate(model, tokenizer, [Request(PROMPTS[number % len(PROMPTS)])], settings_of(number))[0]
        for number in range(40)
    ]
    waiting = [member_of(number, model, tokenizer) for number in range(40)]
    members, batch, most = list(waiting), Batch(model, tokenizer), 0
    while waiting or batch.members:
        if waiting and rng.random() < 0.4:
            joining = waiting[: rng.randint(1, 5)]
            del waiting[: len(joining)]
            batch.join(joining)
        most = max(most, len(batch.members))
        for member in batch.step() if batch.members else ():
            assert len(member.sample.tokens) == len(member.sample.log_probabilities)
    assert most > 8
    for member, alone in zip(members, expected, strict=True):
        assert (member.sample.text, member.sample.tokens) == (alone.text, alone.tokens)
        assert member.sample.finish == alone.finish
        assert member.sample.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-4)
    assert {sample.finish for sample in expected} == {"end_of_text", "stop", "max_new_tokens", "max_new_words"}


def test_the_others_go_on_when_a_continuation_is_removed():
    trained, tokenizer = untrained_model(is_endless=True)
    model = to_inference(trained)
    settings = GenerationSettings(max_new_tokens=50, sampling=Sampling(temperature=0))
    prompts = [f"{number} copies of" for number in range(5)]
    alone = [generate(model, tokenizer, [Request(prompt)], settings)[0].tokens for prompt in prompts]
    members = [
        Member(Continuation(prompt), tokenizer.encode(prompt).tolist(), settings, Sampler(settings.sampling, [()]))
        for prompt in prompts
    ]
    batch = Batch(model, tokenizer)
    batch.join(members)
    for _ in range(10):
        batch.step()
    batch.remove([members[1], members[3]])
    while batch.members:
        batch.step()
    assert [len(member.sample.tokens) for member in members] == [50, 10, 50, 10, 50]
    for member, tokens in zip(members, alone, strict=True):
        assert member.sample.tokens == tokens[: len(member.sample.tokens)]


def test_the_likeliest_tokens_are_recorded_with_their_log_probabilities():
    trained, tokenizer = untrained_model(is_endless=True)
    settings = GenerationSettings(max_new_tokens=6, sampling=Sampling(temperature=0), num_likeliest=3)
    (sample,) = generate(to_inference(trained), tokenizer, [Request("the")], settings)
    context = tokenizer.encode("the").tolist()
    for token, log_probability, likeliest in zip(
        sample.tokens, sample.log_probabilities, sample.likeliest, strict=True
    ):
        with torch.no_grad():
            values, tokens = trained(torch.tensor([context]))[0, -1].log_softmax(-1).topk(3)
        assert list(likeliest) == tokens.tolist()
        assert list(likeliest.values()) == pytest.approx(values.tolist(), abs=1e-4)
        assert likeliest[token] == log_probability == max(likeliest.values())
        context.append(token)
