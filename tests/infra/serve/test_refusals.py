"""What the service refuses: OpenAI's client raises the exception that belongs to each error."""

import json
import threading
import time
from contextlib import ExitStack

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.serve.protocol import CompletionRequest
from tests.infra.serve.conftest import client_of
from tests.support.serving import serving
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

KEY, OTHER_KEY = "0123456789abcdef-first", "0123456789abcdef-second"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0: input should be greater than or equal to 1"),
        ({"max_tokens": 100_001}, "max_tokens", "this server allows at most 100000"),
        ({"max_tokens": "5"}, "max_tokens", "max_tokens is '5': input should be a valid integer"),
        ({"temperature": 2.5}, "temperature", "temperature is 2.5: input should be less than or equal to 2"),
        ({"top_p": -1}, "top_p", "greater than or equal to 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 289}, "n", "1 prompts with 289 continuations each are 289; this server allows at most 288 per request"),
        ({"logprobs": 6}, "logprobs", "less than or equal to 5"),
        ({"logprobs": 1, "echo": True}, "logprobs", "does not compute log probabilities of the prompt"),
        ({"stop": ["a", ""]}, "stop", "must be a text that is not empty"),
        ({"stop": 5}, "stop", "must be a text that is not empty"),
        ({"prompt": {"a": 1}}, "prompt", "prompt must be a text, a list of texts"),
        ({"prompt": []}, "prompt", "prompt is an empty list"),
        ({"prompt": [1, 100_000]}, "prompt", "prompt has the token 100000; the model has the tokens 0 to 299"),
        ({"prompt": [-1]}, "prompt", "prompt has the token -1"),
        ({"seed": 1.5}, "seed", "valid integer"),
        ({"best_of": 3}, "best_of", "supports only the value of n"),
        ({"suffix": "end"}, "suffix", "suffix is 'end'"),
        ({"presence_penalty": 0.5}, "presence_penalty", "presence_penalty is 0.5"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed with stream=true"),
        ({"temprature": 1}, "temprature", "Unrecognized request argument supplied: temprature"),
    ],
)
def test_a_wrong_field_is_named(client, endless, fields, param, message):
    asked = {"prompt": "a", **fields}
    own = {name: asked.pop(name) for name in ("temprature", "seed") if name in asked}
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=str(endless), **asked, extra_body=own)
    assert message in refused.value.body["message"]
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


def test_fields_without_effect_are_accepted(client, endless):
    made = client.completions.create(
        model=str(endless), prompt="a", best_of=1, suffix="", presence_penalty=0, frequency_penalty=0, logit_bias={},
        user="me", max_tokens=None, temperature=None, top_p=None, n=None, stop=None, seed=None, logprobs=None,
    )  # fmt: skip
    assert made.usage.completion_tokens == 16


def test_a_prompt_longer_than_the_context_is_refused(client, endless):
    with pytest.raises(
        openai.BadRequestError, match="maximum context length is 16 tokens, but the prompt has"
    ) as refused:
        client.completions.create(model=str(endless), prompt="copyright " * 20)
    assert refused.value.code == "context_length_exceeded"


def test_another_model_does_not_exist(client, endless):
    for call in (
        lambda: client.completions.create(model="gpt-9", prompt="a"),
        lambda: client.models.retrieve("gpt-9"),
    ):
        with pytest.raises(openai.NotFoundError, match=f"this server has {endless}") as refused:
            call()
        assert refused.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "completions", 405),
        ("POST", "chat/completions", 404),
        ("GET", "../secrets", 404),
        ("DELETE", "models", 405),
    ],
)
def test_other_routes_are_errors_in_the_same_form(http, method, path, status):
    answer = http.request(method, path)
    assert answer.status_code == status
    assert "this server has POST /v1/completions" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"model": "m", "prompt": "\\ud800"}', "application/json", 400),
        (b'{"model": "m", "temperature": NaN}', "application/json", 400),
        (b'{"prompt": "a"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"model": "m"}', "text/plain", 415),
        (b'{"model": "m"}', "", 415),
        (b'{"prompt": "' + b"a" * (1 << 20) + b'"}', "application/json", 413),
    ],
    ids=range(10),
)
def test_a_body_that_is_no_request_is_refused(http, body, content_type, status):
    answer = http.post("completions", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(CompletionRequest.model_fields)), VALUES, max_size=5))
def test_no_body_makes_the_server_fail(http, endless, fields):
    fields = {"model": str(endless), **fields, "max_tokens": 2}
    answer = http.post("completions", content=json.dumps(fields), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 404)
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert len(answer.json()["error"]["message"]) < 400


def test_a_page_elsewhere_cannot_reach_a_service_on_loopback(http):
    """By a name that leads to 127.0.0.1, a page in the user's browser could read the answers."""
    for name, status in (("evil.example", 403), ("evil.example:80", 403), ("localhost:1", 200), ("[::1]", 200)):
        assert http.get("models", headers={"Host": name}).status_code == status


def test_a_key_is_needed_where_one_is_given(endless, tmp_path):
    (tmp_path / "keys").write_text(f"{KEY}\n\n{OTHER_KEY}\n")
    arguments = ("--model", str(endless), "--host", "0.0.0.0", "--api-key-file", str(tmp_path / "keys"))
    with serving(tmp_path, *arguments) as running, ExitStack() as stack:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        for key in (KEY, OTHER_KEY):
            client = stack.enter_context(client_of(running, api_key=key, base_url=url))
            assert client.completions.create(model=str(endless), prompt="a").choices
        wrong = stack.enter_context(client_of(running, api_key="wrong", base_url=url))
        with pytest.raises(openai.AuthenticationError) as refused:
            wrong.completions.create(model=str(endless), prompt="a")
        assert refused.value.code == "invalid_api_key"
        for path, status in (("/v1/models", 401), ("/metrics", 401), ("/health", 200)):
            assert httpx.get(url.removesuffix("/v1") + path).status_code == status
        assert running.stop() == 0
    assert KEY not in running.log.read_text()


@pytest.fixture
def small(endless, tmp_path):
    """A service with room for two texts and one that waits, each for at most 8 seconds."""
    limits = ("--max-batch", "2", "--max-queue", "1", "--timeout-seconds", "8", "--max-tokens", "1000000")
    with serving(tmp_path, "--model", str(endless), *limits) as running:
        yield running


def test_a_full_queue_and_a_late_request_are_refused_with_a_time_to_try_again(small, endless):
    client = client_of(small)
    ended = []

    def run():
        ended.append(client.completions.create(model=str(endless), prompt="a", max_tokens=1_000_000).choices[0])

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    small.wait_for("nightjar_running", 2)
    time.sleep(0.5)
    late = threading.Thread(target=lambda: ended.append(client.completions.create(model=str(endless), prompt="b")))
    late.start()
    small.wait_for("nightjar_waiting", 1)
    with pytest.raises(openai.RateLimitError) as refused:
        client.completions.create(model=str(endless), prompt="a")
    assert refused.value.code == "queue_full"
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    patient = client_of(small, max_retries=5)
    assert patient.completions.create(model=str(endless), prompt="c", max_tokens=3).usage.completion_tokens == 3
    for thread in (*threads, late):
        thread.join(PATIENCE_SECONDS)
    cut = [each for each in ended if hasattr(each, "finish_reason")]
    assert [choice.finish_reason for choice in cut] == ["length", "length"]
    assert all(len(choice.text) > 50 for choice in cut)


def test_a_request_that_waits_too_long_is_refused(small, endless):
    """Two of its three texts run until the time is over, and the third has had no place by then."""
    with pytest.raises(openai.InternalServerError) as refused:
        client_of(small).completions.create(model=str(endless), prompt="a", max_tokens=1_000_000, n=3)
    assert (refused.value.status_code, refused.value.code) == (503, "timeout")
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    small.wait_for("nightjar_running", 0)
    assert small.metric("nightjar_waiting") == 0
