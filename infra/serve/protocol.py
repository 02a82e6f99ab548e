"""The requests of the completions interface: which fields there are, and what their values may be.

Fields that OpenAI's interface has and this service does not are accepted with the value that has no effect. `top_k`,
`min_p` and `repetition_penalty` are additions, for `extra_body` of the client.
"""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.serve.errors import ApiError, invalid
from infra.serve.settings import Limits
from jobs.errors import shorten
from jobs.generation.batch import Member
from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.inference import InferenceModel
from jobs.generation.sampling import Sampler, Sampling
from jobs.tokenizer.tokenizer import Tokenizer

_FORMS = {
    "prompt": "must be a text, a list of texts, a list of tokens, or a list of those",
    "stop": "must be a text that is not empty, or a list of at most 16",
}
_MOST_SEED = 1 << 64

Text = str
Token = int


class StreamOptions(BaseModel):
    """What a stream has besides the text."""

    model_config = ConfigDict(strict=True)

    include_usage: bool | None = None


class CompletionRequest(BaseModel):
    """The body of ``POST /v1/completions``."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    model: str
    prompt: Text | list[Text] | list[Token] | list[list[Token]] | None = ""
    max_tokens: int | None = Field(16, ge=1)
    temperature: float | None = Field(1.0, ge=0, le=2)
    top_p: float | None = Field(1.0, ge=0, le=1)
    n: int | None = Field(1, ge=1)
    seed: int | None = Field(None, ge=-_MOST_SEED // 2, lt=_MOST_SEED)
    stop: Text | list[Text] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool | None = False
    user: str | None = None
    # Only without effect:
    best_of: int | None = None
    suffix: Literal[""] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    # Additions:
    top_k: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(1.0, gt=0)

    @classmethod
    def parse(cls, body: bytes) -> CompletionRequest:
        """Return the request of a body; raise ApiError if it is none."""
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise _refusal(error.errors(include_url=False)[0]) from None
        stops = request.stops
        if "" in stops or len(stops) > 16:
            raise invalid("stop", f"stop {_FORMS['stop']}")
        if request.best_of not in (None, request.num_samples):
            raise invalid("best_of", f"best_of is {request.best_of}: this server supports only the value of n")
        if request.echo and request.logprobs is not None:
            raise invalid("logprobs", "logprobs with echo: this server does not compute those of the prompt")
        if request.stream_options is not None and not request.stream:
            raise invalid("stream_options", "stream_options is only allowed with stream=true")
        return request

    @property
    def num_samples(self) -> int:
        """Return the number of continuations of each prompt."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the texts that end a continuation."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def settings(self) -> GenerationSettings:
        """Return the settings of the continuations. Without a seed, it is random."""
        sampling = Sampling(
            repetition_penalty=self.repetition_penalty or 1.0,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
        )
        return GenerationSettings(
            max_new_tokens=self.max_tokens or 16,
            sampling=sampling,
            stop=self.stops,
            seed=secrets.randbits(64) if self.seed is None else self.seed % _MOST_SEED,
            num_likeliest=self.logprobs or 0,
        )

    def members(self, model: InferenceModel, tokenizer: Tokenizer, limits: Limits) -> list[Member]:
        """Return the continuations that are asked for; raise ApiError for those that this model cannot give."""
        settings = self.settings()
        if settings.max_tokens > limits.max_tokens:
            raise invalid("max_tokens", f"max_tokens is {settings.max_tokens}; this server allows {limits.max_tokens}")
        prompts = _as_list(self.prompt)
        if len(prompts) * self.num_samples > limits.max_choices:
            raise invalid(
                "n",
                f"{len(prompts)} prompts, {self.num_samples} times; this server allows {limits.max_choices} together",
            )
        contexts = [_read(prompt, model, tokenizer) for prompt in prompts]
        needs_text = bool(self.stream or self.stops)
        return [
            Member(
                Continuation(text),
                context,
                settings,
                Sampler(settings.sampling, [(settings.seed, at, sample)]),
                needs_text,
            )
            for at, (text, context) in enumerate(contexts)
            for sample in range(self.num_samples)
        ]


def _as_list(prompt: str | list[str] | list[int] | list[list[int]] | None) -> list[str | list[int]]:
    """Return the prompts, each a text or tokens."""
    if not isinstance(prompt, list):
        return [prompt or ""]
    if not prompt:
        raise invalid("prompt", f"prompt is an empty list: it {_FORMS['prompt']}")
    tokens = [each for each in prompt if isinstance(each, int)]
    return [tokens] if tokens else [each for each in prompt if not isinstance(each, int)]


def _read(prompt: str | list[int], model: InferenceModel, tokenizer: Tokenizer) -> tuple[str, list[int]]:
    """Return the text of a prompt, and its tokens, which fit the context; an empty prompt begins with end-of-text."""
    if isinstance(prompt, str):
        text, context = prompt, tokenizer.encode(prompt).tolist()
    else:
        if wrong := [token for token in prompt if not 0 <= token < tokenizer.vocab_size]:
            raise invalid("prompt", f"prompt has the token {wrong[0]}; the model has 0 to {tokenizer.vocab_size - 1}")
        text, context = tokenizer.decode(prompt), prompt
    if len(context) > model.num_positions and not model.is_sliding:
        raise invalid(
            "prompt",
            f"This model's maximum context length is {model.num_positions} tokens, but the prompt has {len(context)}.",
            code="context_length_exceeded",
        )
    return text, context or [tokenizer.end_of_text]


def _refusal(found: Any) -> ApiError:
    """Return the answer to the first thing that pydantic finds wrong."""
    if not found["loc"]:
        return invalid(None, f"The body is not a JSON object: {found['msg']}")
    name = str(found["loc"][0])
    if found["type"] == "extra_forbidden":
        return invalid(shorten(name, 60), f"Unrecognized request argument supplied: {shorten(name, 60)}")
    if found["type"] == "missing":
        return invalid(name, f"you must provide a {name} parameter")
    said = _FORMS.get(name) or f"is {shorten(repr(found['input']), 60)}: {found['msg'][0].lower()}{found['msg'][1:]}"
    return invalid(name, f"{name} {said}")
