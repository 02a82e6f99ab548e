"""OpenAI's client, as it comes, completes and streams. The text is that of ``nightjar sample``."""

import asyncio
import json

import httpx
import openai
import pytest

from jobs.cli.main import main
from tests.support.models import untrained_model
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

PROMPTS = ["", "the", "Unless required by", "Käfer und 你好", "Licensor shall mean the copyright owner" * 2]
EXTRA_KEYS = {"top_k", "min_p", "repetition_penalty"}


@pytest.fixture
def sampled(endless, capsysbinary):
    """Return the text that ``nightjar sample`` writes after a prompt."""

    def sample(prompt, **options):
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        capsysbinary.readouterr()
        assert main(["sample", "--model", str(endless), "--prompt", prompt, *words]) == 0
        return capsysbinary.readouterr().out.decode().removeprefix(prompt).removesuffix("\n")

    return sample


@pytest.fixture
def complete(client, endless):
    def completion(prompt, **options):
        extra = {name: options.pop(name) for name in EXTRA_KEYS & options.keys()}
        return client.completions.create(model=str(endless), prompt=prompt, extra_body=extra, **options)

    return completion


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_that_of_the_command_line(complete, sampled, prompt):
    if len(prompt) < 60:  # longer ones do not fit the context
        made = complete(prompt, max_tokens=50, temperature=0)
        assert made.choices[0].text == sampled(prompt, max_new_tokens=50, temperature=0)
        assert made.choices[0].finish_reason == "length"
        assert made.usage.completion_tokens == 50


def test_random_text_is_that_of_the_command_line_with_the_same_seed(complete, sampled):
    asked = {"temperature": 0.9, "top_p": 0.95, "top_k": 40, "min_p": 0.001, "repetition_penalty": 1.1, "seed": 11}
    made = complete("the", max_tokens=40, stop="qz", **asked).choices[0].text
    assert made == sampled("the", max_new_tokens=40, stop="qz", **asked)
    assert complete("the", max_tokens=40, stop="qz", **{**asked, "seed": 12}).choices[0].text != made
    assert len({complete("the", max_tokens=40).choices[0].text for _ in range(3)}) == 3  # without a seed


def test_32_requests_at_once_get_what_each_gets_alone(service, endless, complete):
    """Greedy and random, short and long, streams and not, started together."""
    asked = [
        {"prompt": f"{number} {PROMPTS[number % 4][:8]}", "max_tokens": 5 + 11 * number % 60, "seed": number,
         "temperature": number % 3 / 2, "stop": "e" if number % 5 == 0 else None}
        for number in range(32)
    ]  # fmt: skip
    alone = [complete(**each).choices[0].text for each in asked]

    async def one(client, number):
        if number % 2:
            return (await client.completions.create(model=str(endless), **asked[number])).choices[0].text
        stream = await client.completions.create(model=str(endless), **asked[number], stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def together():
        async with openai.AsyncOpenAI(base_url=service.url, api_key="unused", max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(32)))

    steps, tokens = service.metric("nightjar_decoding_steps_total"), service.metric("nightjar_generated_tokens_total")
    assert asyncio.run(together()) == alone
    steps = service.metric("nightjar_decoding_steps_total") - steps
    tokens = service.metric("nightjar_generated_tokens_total") - tokens
    assert tokens > 4 * steps  # they were batched


def test_a_stream_gives_the_same_text_in_parts(complete):
    asked = {"max_tokens": 60, "temperature": 0, "stop": ["qzqz", "zqzq"]}
    whole = complete("the", **asked)
    chunks = list(complete("the", **asked, stream=True, stream_options={"include_usage": True}))
    parts = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(part.text for part in parts) == whole.choices[0].text
    assert len(parts) > 5
    assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + ["length"]
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"text_completion"}


def test_no_part_of_a_stop_string_and_no_split_character_is_streamed(complete):
    finishes = set()
    for seed in range(8):
        asked = {"max_tokens": 60, "seed": seed, "temperature": 1.5, "stop": ["th", "e"]}
        whole = complete("Käfer", **asked).choices[0]
        parts = [chunk.choices[0].text for chunk in complete("Käfer", **asked, stream=True)]
        assert "".join(parts) == whole.text
        assert "e" not in whole.text
        finishes.add(whole.finish_reason)
    assert finishes == {"stop", "length"}


def test_end_of_text_ends_a_completion(service, tmp_path):
    from infra.serve.engine import Engine, Job
    from infra.serve.protocol import CompletionRequest
    from infra.serve.settings import Limits
    from jobs.generation.inference import to_inference

    model, tokenizer = untrained_model()
    model = to_inference(model)
    request = CompletionRequest.parse(b'{"model": "m", "temperature": 2, "seed": 0, "n": 20, "max_tokens": 900}')
    updates, engine = [], Engine(model, tokenizer, Limits())
    engine.submit(Job(request.members(model, tokenizer, Limits()), updates.append, pytest.fail))
    engine.close()
    engine.join(PATIENCE_SECONDS)
    assert sorted(update.index for update in updates) == list(range(20))
    ended = [update for update in updates if update.finish == "stop"]
    assert len(ended) > 10
    assert all(update.num_tokens <= 900 and "endoftext" not in update.text for update in ended)


def test_several_prompts_and_samples_are_choices_in_order(complete, sampled):
    made = complete(["the", "a copy"], n=3, max_tokens=12, seed=4, temperature=1)
    assert [choice.index for choice in made.choices] == list(range(6))
    assert len({choice.text for choice in made.choices}) == 6
    assert made.choices[0].text == sampled("the", max_new_tokens=12, seed=4, temperature=1, top_k=10_000)
    assert made.usage.completion_tokens == 72
    streamed = [""] * 6
    for chunk in complete(["the", "a copy"], n=3, max_tokens=12, seed=4, temperature=1, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in made.choices]


def test_a_prompt_may_be_tokens(complete):
    _, tokenizer = untrained_model()
    ids = tokenizer.encode("the copyright").tolist()
    asked = {"max_tokens": 10, "temperature": 0}
    text = complete("the copyright", **asked).choices[0].text
    assert complete(ids, **asked).choices[0].text == text
    assert complete([ids, ids[:1]], **asked).choices[0].text == text


def test_echo_begins_with_the_prompt(complete):
    plain, echoed = (complete("the", max_tokens=9, temperature=0, echo=echo).choices[0].text for echo in (False, True))
    assert echoed == f"the{plain}"
    parts = [each.choices[0].text for each in complete("the", max_tokens=9, temperature=0, echo=True, stream=True)]
    assert "".join(parts) == echoed


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_those_of_the_text(complete, stream):
    asked = {"max_tokens": 30, "temperature": 0, "logprobs": 2, "stop": "zqzq"}
    text = complete("the", **asked).choices[0].text
    made = complete("the", **asked, stream=stream)
    found = [chunk.choices[0].logprobs for chunk in made] if stream else [made.choices[0].logprobs]
    found = [each for each in found if each]
    pieces = [piece for each in found for piece in each.tokens]
    assert len(pieces) == 30
    values = [value for each in found for value in each.token_logprobs]
    tops = [top for each in found for top in each.top_logprobs]
    offsets = [offset for each in found for offset in each.text_offset]
    assert len(values) == len(tops) == len(offsets) == 30
    assert values == pytest.approx([max(top.values()) for top in tops], abs=1e-4)
    assert max(values) <= 0
    assert all(len(top) == 2 for top in tops)
    assert_pieces_are_in(text, pieces, offsets)


def test_log_probabilities_end_with_the_text_before_a_stop_string(complete):
    asked = {"max_tokens": 60, "seed": 1, "logprobs": 0}
    text = complete("the", **asked).choices[0].text
    made = complete("the", **asked, stop=text[20:22]).choices[0]
    assert made.finish_reason == "stop"
    assert made.text == text[: text.index(text[20:22])]
    assert_pieces_are_in(made.text, made.logprobs.tokens, made.logprobs.text_offset)


def assert_pieces_are_in(text, pieces, offsets):
    """Assert that each token is where it says; a token that is part of a character is not looked for."""
    assert offsets == sorted(offsets)
    assert (offsets[0], len(offsets)) == (0, len(pieces))
    assert offsets[-1] < len(text)
    for piece, offset in zip(pieces, offsets, strict=True):
        assert "\ufffd" in piece or text[offset : offset + len(piece)] == piece


def test_models_are_listed(client, endless):
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == (str(endless), "nightjar")
    assert client.models.retrieve(str(endless)).id == str(endless)


def test_a_client_that_leaves_frees_its_place(service, client, endless, http):
    before = service.metric("nightjar_unfinished_requests_total")
    stream = client.completions.create(model=str(endless), prompt="a", max_tokens=100_000, stream=True)
    assert next(iter(stream)).choices[0].text
    service.wait_for("nightjar_running", 1)
    stream.close()
    service.wait_for("nightjar_running", 0)
    body = {"model": str(endless), "prompt": "a", "max_tokens": 100_000, "n": 3}
    with pytest.raises(httpx.ReadTimeout):
        http.post("completions", json=body, timeout=1)
    service.wait_for("nightjar_unfinished_requests_total", before + 2)
    service.wait_for("nightjar_running", 0)


def test_the_metrics_count_what_was_done(service, complete, http):
    from prometheus_client.parser import text_string_to_metric_families

    before = service.metric("nightjar_generated_tokens_total")
    complete("the", max_tokens=7)
    assert service.metric("nightjar_generated_tokens_total") == before + 7
    assert service.metric('nightjar_requests_total{path="/v1/completions",status="200"}') >= 1
    text = httpx.get(f"{service.url.removesuffix('/v1')}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (model,) = families["nightjar_model"].samples
    assert json.loads(json.dumps(model.labels))["fingerprint"]
    seconds = {sample.name: sample.value for sample in families["nightjar_completion_seconds"].samples}
    assert seconds["nightjar_completion_seconds_count"] >= 1
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
    assert httpx.get(f"{service.url.removesuffix('/v1')}/health").json() == {"status": "ok"}
