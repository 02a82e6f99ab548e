"""The generation of text for prompts that are all known at the start.

A prompt that is longer than the context loses its first tokens. What happens when the context is full depends on the
kind of model (see `CachedStream` and `SlidingStream`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from jobs.generation.batch import Batch, Member
from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.inference import InferenceModel
from jobs.generation.sampling import Sampler
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A request for one continuation. Its text depends on `prompt`, `prompt_index`, `sample` and the settings."""

    prompt: str
    prompt_index: int = 0
    sample: int = 0


def generate(
    model: InferenceModel,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    settings: GenerationSettings,
    on_token: Callable[[Sequence[Continuation]], None] | None = None,
) -> list[Continuation]:
    """Return the continuations of all `requests`, generated in one batch. An empty prompt is replaced by end-of-text.

    After each step of the batch, `on_token` is called with all continuations, whether they have ended or not.
    """
    read = cache(partial(_read_prompt, tokenizer, num_positions=model.num_positions))  # equal prompts cause one warning
    needs_text = settings.max_new_tokens is None or bool(settings.stop or settings.min_new_words or on_token)
    members = []
    for each in requests:
        context, num_dropped, unknown = read(each.prompt)
        sample = Continuation(each.prompt, num_dropped, unknown)
        sampler = Sampler(settings.sampling, [(settings.seed, each.prompt_index, each.sample)])
        members.append(Member(sample, context, settings, sampler, needs_text))
    samples = [member.sample for member in members]
    batch = Batch(model, tokenizer)
    batch.join(members)
    while batch.members:
        batch.step()
        if on_token is not None:
            on_token(samples)
    return samples


def _read_prompt(tokenizer: Tokenizer, text: str, num_positions: int) -> tuple[list[int], int, list[str]]:
    """Return the last tokens of a prompt that fit the context, the number of tokens dropped, and the unknown words."""
    ids: list[int] = tokenizer.encode(text).tolist() or [tokenizer.end_of_text]
    dropped = max(0, len(ids) - num_positions)
    if dropped:
        log.warning("the prompt has %d tokens, but the model reads %d: the first %d tokens are ignored",
                    len(ids), num_positions, dropped)  # fmt: skip
    unknown = tokenizer.unknown(text)
    if unknown:
        log.warning("these words of the prompt are not in the vocabulary: %s", ", ".join(dict.fromkeys(unknown)))
    return ids[dropped:], dropped, unknown
