"""The generation of text in batches: the prompts are read at once, then tokens are drawn one by one.

Sequences of a batch may have prompts of different lengths. A prompt that is longer than the context loses its first
tokens. What happens when the context is full depends on the kind of model (see its stream).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.sampling import Sampler
from jobs.generation.stream import InferenceModel
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One continuation to generate; prompt, indices and settings determine it."""

    prompt: str
    prompt_index: int = 0
    sample: int = 0


@dataclass(frozen=True)
class Generated:
    """The continuations of a batch in the order of the requests, and the duration of their generation."""

    samples: list[Continuation]
    seconds: float

    @property
    def num_tokens(self) -> int:
        """Return the number of tokens of all samples."""
        return sum(len(sample.tokens) for sample in self.samples)

    @property
    def tokens_per_second(self) -> float:
        """Return the speed, including the time to read the prompts."""
        return self.num_tokens / self.seconds


@torch.inference_mode()
def generate(
    model: InferenceModel,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    settings: GenerationSettings,
    on_token: Callable[[Sequence[Continuation]], None] | None = None,
) -> Generated:
    """Generate all continuations of `requests` in one batch.

    Args:
        model: The model.
        tokenizer: The tokenizer that the model was trained with.
        requests: The prompts; an empty prompt starts with end-of-text.
        settings: Sampling, and the conditions that end a continuation.
        on_token: Called after each token with the continuations so far.
    """
    started = time.perf_counter()
    prompts = {
        text: read_prompt(tokenizer, text, model.num_positions)
        for text in dict.fromkeys(each.prompt for each in requests)
    }
    read = [prompts[request.prompt] for request in requests]
    samples = [Continuation(each.text, each.num_dropped, each.unknown_words) for each in read]
    sampler = Sampler(settings.sampling, [(settings.seed, each.prompt_index, each.sample) for each in requests])
    contexts = [each.tokens for each in read]
    stream = model.stream(contexts, settings.max_tokens)
    seen = seen_tokens(contexts, stream.logits) if settings.sampling.repetition_penalty != 1 else None
    needs_text = settings.ends_by_text or on_token is not None
    for _ in range(settings.max_tokens):
        tokens = sampler.draw(stream.logits, seen)
        _append(samples, tokens, stream.logits)
        _finish(samples, tokenizer, settings, needs_text)
        if on_token is not None:
            on_token(samples)
        if all(sample.finish for sample in samples):
            break
        if seen is not None:
            seen.scatter_(1, tokens[:, None], value=True)
        stream.feed(tokens)
    if not needs_text:
        for sample in samples:
            sample.decode(tokenizer, settings)
    return Generated(samples, time.perf_counter() - started)


class Prompt(NamedTuple):
    """A prompt in the form that a model reads."""

    text: str
    tokens: list[int]
    """The last tokens of the prompt, as many as fit the context."""
    num_dropped: int
    """Number of tokens before them."""
    unknown_words: list[str]
    """Words that are not in the vocabulary."""


def read_prompt(tokenizer: Tokenizer, text: str, num_positions: int) -> Prompt:
    """Encode a prompt, and warn of tokens that do not fit the context and of unknown words."""
    ids: list[int] = tokenizer.encode(text).tolist() or [tokenizer.end_of_text]
    dropped = max(0, len(ids) - num_positions)
    if dropped:
        log.warning("the prompt has %d tokens, but the model reads %d: the first %d tokens are ignored",
                    len(ids), num_positions, dropped)  # fmt: skip
    unknown = tokenizer.unknown(text)
    if unknown:
        log.warning("words of the prompt that are not in the vocabulary: %s", ", ".join(dict.fromkeys(unknown)))
    return Prompt(text, ids[dropped:], dropped, unknown)


def seen_tokens(contexts: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """Return which tokens (B, V), boolean, each of `contexts` contains."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, context in zip(seen, contexts, strict=True):
        row[list(context)] = True
    return seen


def _append(samples: Sequence[Continuation], tokens: Tensor, logits: Tensor) -> None:
    """Append one of `tokens` (B) to each unfinished sample, with its log probability by the model's `logits` (B, V)."""
    log_probabilities = logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
    for sample, token, log_probability in zip(samples, tokens.tolist(), log_probabilities.tolist(), strict=True):
        if sample.finish is None:
            sample.tokens.append(token)
            sample.log_probabilities.append(log_probability)


def _finish(
    samples: Sequence[Continuation], tokenizer: Tokenizer, settings: GenerationSettings, needs_text: bool
) -> None:
    """Set `finish` of the samples that end with their last token; decode the text if the caller needs it."""
    for sample in samples:
        if sample.finish is None:
            if sample.tokens[-1] == tokenizer.end_of_text:
                sample.finish = "end_of_text"
            if needs_text:
                sample.decode(tokenizer, settings)
            if sample.finish is None and len(sample.tokens) >= settings.max_tokens:
                sample.finish = "max_new_tokens"
