"""The answers of the completions interface: one JSON object, or the events of a stream."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from infra.serve.engine import Update
from infra.serve.protocol import CompletionRequest
from jobs.generation.batch import Member
from jobs.tokenizer.tokenizer import Tokenizer

DONE = b"data: [DONE]\n\n"


def event(body: dict[str, Any]) -> bytes:
    """Return a server-sent event whose data is `body` as JSON."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


class Answer:
    """The answer to one request."""

    def __init__(
        self, request: CompletionRequest, members: Sequence[Member], tokenizer: Tokenizer, fingerprint: str
    ) -> None:
        self._request = request
        self._choices = [_Choice(member, tokenizer, request) for member in members]
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
            "system_fingerprint": fingerprint,
        }
        self.num_prompt_tokens = sum(len(member.context) for member in members[:: request.num_samples])
        """The number of tokens of all prompts."""
        self.num_tokens = 0
        """The number of tokens generated so far, in all continuations."""

    def add(self, update: Update) -> dict[str, Any] | None:
        """Add an update to its continuation. Return what is new in the continuation, as a choice for an event.

        Return None if nothing is new.
        """
        choice = self._choices[update.index]
        self.num_tokens += update.num_tokens - choice.num_tokens
        return choice.advance(update)

    @property
    def is_complete(self) -> bool:
        """Return whether all continuations have ended."""
        return all(choice.is_finished for choice in self._choices)

    def whole(self) -> dict[str, Any]:
        """Return the complete answer as one JSON object."""
        return {**self._head, "choices": [choice.whole() for choice in self._choices], "usage": self._usage()}

    def events(self, updates: Sequence[Update]) -> Iterator[bytes]:
        """Add updates to the answer, and yield an event for each update that brings something new.

        If this completes the answer, also yield the event that ends the stream.
        """
        options = self._request.stream_options
        wants_usage = options is not None and bool(options.include_usage)
        usage = {"usage": None} if wants_usage else {}
        for update in updates:
            if delta := self.add(update):
                yield event({**self._head, "choices": [delta], **usage})
        if self.is_complete:
            if wants_usage:
                yield event({**self._head, "choices": [], "usage": self._usage()})
            yield DONE

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": self.num_tokens,
            "total_tokens": self.num_prompt_tokens + self.num_tokens,
        }


class _Choice:
    """A continuation, which OpenAI's interface calls a choice, and how much of it was sent to the client."""

    def __init__(self, member: Member, tokenizer: Tokenizer, request: CompletionRequest) -> None:
        self._sample, self._tokenizer = member.sample, tokenizer
        self._index = 0
        self._echo = member.sample.prompt if request.echo else ""
        self._num_likeliest = request.logprobs
        self._text = ""
        self._finish: str | None = None
        self._num_sent = 0
        self._begins = [0]
        self._parts: list[dict[str, Any]] = []
        self.num_tokens = 0
        self.is_finished = False

    def advance(self, update: Update) -> dict[str, Any] | None:
        """Return what is new since the last call, as a choice in an event. Return None if nothing is new."""
        new = update.text[len(self._text) :]
        logprobs = self._logprobs(update)
        self._index, self.num_tokens, self._finish = update.index, update.num_tokens, update.finish
        self._text += new
        self.is_finished = update.finish is not None
        echo, self._echo = self._echo, ""
        if not (new or echo or update.finish or logprobs):
            return None
        delta = {"text": echo + new, "index": self._index, "logprobs": logprobs, "finish_reason": update.finish}
        self._parts.append(delta)
        return delta

    def whole(self) -> dict[str, Any]:
        """Return the whole continuation as a choice in the answer."""
        whole = {**self._parts[-1], "text": "".join(part["text"] for part in self._parts)}
        if self._num_likeliest is not None:
            parts = [part["logprobs"] for part in self._parts if part["logprobs"]]
            whole["logprobs"] = {key: [each for part in parts for each in part[key]] for key in _LOGPROBS}
        return whole

    def _logprobs(self, update: Update) -> dict[str, Any] | None:
        """Return the log probabilities of tokens that were not sent before and that begin in the text of `update`.

        Return None if there are no such tokens, or if the request does not include log probabilities. The end-of-text
        token and tokens after a stop string are left out, since they are not in the text.
        """
        if self._num_likeliest is None:
            return None
        sample, found = self._sample, {key: list[Any]() for key in _LOGPROBS}
        while self._num_sent < update.num_tokens:
            at, token = self._num_sent, sample.tokens[self._num_sent]
            if token == self._tokenizer.end_of_text or self._begin(at) >= len(update.text):
                break
            found["tokens"].append(self._tokenizer.decode([token]))
            found["token_logprobs"].append(sample.log_probabilities[at])
            found["text_offset"].append(self._begin(at))
            if self._num_likeliest:
                pairs = sample.likeliest[at].items()
                found["top_logprobs"].append({self._tokenizer.decode([each]): value for each, value in pairs})
            self._num_sent += 1
        return found if found["tokens"] else None

    def _begin(self, token: int) -> int:
        """Return the index in the text, in characters, at which a token begins.

        `token` is the token's number in the continuation, from 0.
        """
        while len(self._begins) <= token:
            self._begins.append(
                len(self._tokenizer.decode_after(self._sample.prompt, self._sample.tokens[: len(self._begins)]))
            )
        return self._begins[token]


_LOGPROBS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
