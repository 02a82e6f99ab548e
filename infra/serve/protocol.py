"""The requests of the completions interface: their fields, and the values that are allowed.

Fields of OpenAI's interface that this service does not support are accepted only with a value that has no effect.
`top_k`, `min_p` and `repetition_penalty` are additions; OpenAI's clients send them with `extra_body`.
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
    "prompt": "must be a text, a list of texts, a list of tokens, or a list of lists of tokens",
    "stop": "must be a text that is not empty, or a list of at most 16 such texts",
}
_MOST_SEED = 1 << 64

Text = str
Token = int


class StreamOptions(BaseModel):
    """Options of a stream."""

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
    # Not supported, so only a value without effect is accepted:
    best_of: int | None = None
    suffix: Literal[""] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    # Additions to OpenAI's interface:
    top_k: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(1.0, gt=0)

    @classmethod
    def parse(cls, body: bytes) -> CompletionRequest:
        """Return the request in the body of an HTTP request.

        Raises:
            ApiError: if the body is not a valid request.
        """
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise _refusal(error.errors(include_url=False)[0]) from None
        stops = request.stops
        if "" in stops or len(stops) > 16:
            raise invalid("stop", f"stop {_FORMS['stop']}")
        if request.best_of not in (None, request.num_samples):
            raise invalid("best_of", f"best_of is {request.best_of}; this server supports only the value of n")
        if request.echo and request.logprobs is not None:
            raise invalid(
                "logprobs",
                "logprobs with echo: this server does not compute log probabilities of the prompt; leave out one field",
            )
        if request.stream_options is not None and not request.stream:
            raise invalid("stream_options", "stream_options is only allowed with stream=true")
        return request

    @property
    def num_samples(self) -> int:
        """Return the number of continuations of each prompt."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the stop strings: texts that end a continuation."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def settings(self) -> GenerationSettings:
        """Return the settings of the continuations. If the request has no seed, choose a random one."""
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
        """Return one `Member` of the batch for each requested continuation.

        Raises:
            ApiError: if the request exceeds the limits, or a prompt is too long or has unknown token ids.
        """
        settings = self.settings()
        if settings.max_tokens > limits.max_tokens:
            raise invalid(
                "max_tokens", f"max_tokens is {settings.max_tokens}; this server allows at most {limits.max_tokens}"
            )
        prompts = _as_list(self.prompt)
        if len(prompts) * self.num_samples > limits.max_choices:
            raise invalid(
                "n",
                f"{len(prompts)} prompts with {self.num_samples} continuations each are"
                f" {len(prompts) * self.num_samples}; this server allows at most {limits.max_choices} per request",
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
    """Return the prompts of a request. Each is a text or a list of token ids."""
    if not isinstance(prompt, list):
        return [prompt or ""]
    if not prompt:
        raise invalid("prompt", f"prompt is an empty list: it {_FORMS['prompt']}")
    tokens = [each for each in prompt if isinstance(each, int)]
    return [tokens] if tokens else [each for each in prompt if not isinstance(each, int)]


def _read(prompt: str | list[int], model: InferenceModel, tokenizer: Tokenizer) -> tuple[str, list[int]]:
    """Return the text and the token ids of a prompt. For an empty prompt, the ids are [end-of-text token].

    Raises:
        ApiError: if the prompt does not fit the model's context, or if a token is not in the vocabulary.
    """
    if isinstance(prompt, str):
        text, context = prompt, tokenizer.encode(prompt).tolist()
    else:
        if wrong := [token for token in prompt if not 0 <= token < tokenizer.vocab_size]:
            raise invalid(
                "prompt", f"prompt has the token {wrong[0]}; the model has the tokens 0 to {tokenizer.vocab_size - 1}"
            )
        text, context = tokenizer.decode(prompt), prompt
    if len(context) > model.num_positions and not model.accepts_long_prompts:
        raise invalid(
            "prompt",
            f"This model's maximum context length is {model.num_positions} tokens, but the prompt has {len(context)}.",
            code="context_length_exceeded",
        )
    return text, context or [tokenizer.end_of_text]


def _refusal(found: Any) -> ApiError:
    """Return the error for the first problem that pydantic found."""
    if not found["loc"]:
        return invalid(None, f"The body is not a JSON object: {found['msg']}")
    name = str(found["loc"][0])
    if found["type"] == "extra_forbidden":
        return invalid(shorten(name, 60), f"Unrecognized request argument supplied: {shorten(name, 60)}")
    if found["type"] == "missing":
        return invalid(name, f"you must provide a {name} parameter")
    said = _FORMS.get(name) or f"is {shorten(repr(found['input']), 60)}: {found['msg'][0].lower()}{found['msg'][1:]}"
    return invalid(name, f"{name} {said}")
