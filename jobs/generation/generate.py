"""The generation of text in batches: the prompts are read at once, then tokens are drawn one by one.

A prompt that is longer than the context loses its first tokens. What happens when the context is full depends on the
kind of model (see its stream).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.inference import InferenceModel
from jobs.generation.sampling import Sampler
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One continuation to generate; prompt, indices and settings determine it."""

    prompt: str
    prompt_index: int = 0
    sample: int = 0


@torch.inference_mode()
def generate(
    model: InferenceModel,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    settings: GenerationSettings,
    on_token: Callable[[Sequence[Continuation]], None] | None = None,
) -> list[Continuation]:
    """Return the continuations of all `requests`, generated in one batch; an empty prompt starts with end-of-text.

    After each token, `on_token` is called with the continuations so far.
    """
    read = cache(partial(_read_prompt, tokenizer, num_positions=model.num_positions))  # warns once of equal prompts
    contexts = [read(each.prompt)[0] for each in requests]
    samples = [Continuation(each.prompt, *read(each.prompt)[1:]) for each in requests]
    sampler = Sampler(settings.sampling, [(settings.seed, each.prompt_index, each.sample) for each in requests])
    stream = model.stream(contexts, settings.max_tokens)
    seen = None
    if settings.sampling.repetition_penalty != 1:
        seen = torch.zeros_like(stream.logits, dtype=torch.bool)  # the tokens (B, V) that each sequence contains
        for row, context in zip(seen, contexts, strict=True):
            row[context] = True
    needs_text = settings.max_new_tokens is None or bool(settings.stop or settings.min_new_words or on_token)
    for _ in range(settings.max_tokens):
        tokens = sampler.draw(_without_early_end(stream.logits, samples, tokenizer.end_of_text, settings), seen)
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
    return samples


def _read_prompt(tokenizer: Tokenizer, text: str, num_positions: int) -> tuple[list[int], int, list[str]]:
    """Return the tokens of a prompt that fit the context, the number of tokens before them, and the unknown words."""
    ids: list[int] = tokenizer.encode(text).tolist() or [tokenizer.end_of_text]
    dropped = max(0, len(ids) - num_positions)
    if dropped:
        log.warning("the prompt has %d tokens, but the model reads %d: the first %d tokens are ignored",
                    len(ids), num_positions, dropped)  # fmt: skip
    unknown = tokenizer.unknown(text)
    if unknown:
        log.warning("words of the prompt that are not in the vocabulary: %s", ", ".join(dict.fromkeys(unknown)))
    return ids[dropped:], dropped, unknown


def _without_early_end(
    logits: Tensor, samples: Sequence[Continuation], end_of_text: int, settings: GenerationSettings
) -> Tensor:
    """Return `logits` (B, V) in which samples that lack words of `min_new_words` cannot end."""
    lacking = [not sample.has_words(settings.min_new_words) for sample in samples]
    if not any(lacking):
        return logits
    logits = logits.clone()
    logits[torch.tensor(lacking, device=logits.device), end_of_text] = -math.inf
    return logits


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
