"""Text from a model: the prompts first, then token by token.

Sequences of one batch may have prompts of different lengths. The context is as long as the model has positions: of a
longer prompt the last tokens are kept. How a kind of model goes on when its context is full, its `stream` says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from jobs.generation.continuation import Continuation, Settings
from jobs.generation.sampling import Sampler
from jobs.generation.stream import InferenceModel
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One continuation to make. Settings, prompt and the two indices decide it."""

    prompt: str
    prompt_index: int = 0
    sample: int = 0


@dataclass(frozen=True)
class Generated:
    """The continuations of a batch, in the order of the requests, and how fast they were made."""

    samples: list[Continuation]
    seconds: float

    @property
    def num_tokens(self) -> int:
        """Tokens of all samples."""
        return sum(len(sample.tokens) for sample in self.samples)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all samples over the time from the prompts to the last."""
        return self.num_tokens / self.seconds


@torch.inference_mode()
def generate(
    model: InferenceModel,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    settings: Settings,
    listen: Callable[[Sequence[Continuation]], None] | None = None,
) -> Generated:
    """Make all continuations of `requests` in one batch; `listen` is called after each token.

    An empty prompt starts from end-of-text.
    """
    started = time.perf_counter()
    prompts = {
        text: read_prompt(tokenizer, text, model.num_positions)
        for text in dict.fromkeys(each.prompt for each in requests)
    }
    read = [prompts[request.prompt] for request in requests]
    samples = [Continuation(each.text, each.num_dropped, each.unknown_words) for each in read]
    sampler = Sampler(settings.sampling, [(settings.seed, each.prompt_index, each.sample) for each in requests])
    stream = model.stream([each.tokens for each in read], settings.most_tokens)
    seen = stream.seen() if settings.sampling.repetition_penalty != 1 else None
    watch_text = settings.watch_text or listen is not None
    for _ in range(settings.most_tokens):
        tokens = sampler.draw(stream.logits, seen)
        _add(samples, tokens, stream.logits)
        _end(samples, tokenizer, settings, watch_text)
        if listen is not None:
            listen(samples)
        if all(sample.finish for sample in samples):
            break
        if seen is not None:
            seen.scatter_(1, tokens[:, None], value=True)
        stream.feed(tokens)
    if not watch_text:
        for sample in samples:
            sample.read(tokenizer, settings)
    return Generated(samples, time.perf_counter() - started)


class Prompt(NamedTuple):
    """A prompt as a model sees it: its last `tokens`, how many earlier ones do not fit, which words it cannot know."""

    text: str
    tokens: list[int]
    num_dropped: int
    unknown_words: list[str]


def read_prompt(tokenizer: Tokenizer, text: str, num_positions: int) -> Prompt:
    """Encode a prompt, and say what of it the model does not see."""
    ids: list[int] = tokenizer.encode(text).tolist() or [tokenizer.end_of_text]
    dropped = max(0, len(ids) - num_positions)
    if dropped:
        log.warning("the prompt has %d tokens, the model %d positions: the first %d tokens are left out",
                    len(ids), num_positions, dropped)  # fmt: skip
    unknown = tokenizer.unknown(text)
    if unknown:
        log.warning("not in the vocabulary, so the model does not know it: %s", ", ".join(dict.fromkeys(unknown)))
    return Prompt(text, ids[dropped:], dropped, unknown)


def _add(samples: Sequence[Continuation], tokens: Tensor, logits: Tensor) -> None:
    """Give each sample that is not finished its next token, with the model's own log probability."""
    log_probabilities = logits.gather(1, tokens[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
    for sample, token, log_probability in zip(samples, tokens.tolist(), log_probabilities.tolist(), strict=True):
        if sample.finish is None:
            sample.tokens.append(token)
            sample.log_probabilities.append(log_probability)


def _end(samples: Sequence[Continuation], tokenizer: Tokenizer, settings: Settings, watch_text: bool) -> None:
    """Finish the samples that nothing can follow."""
    for sample in samples:
        if sample.finish is None:
            if sample.tokens[-1] == tokenizer.end_of_text:
                sample.finish = "end_of_text"
            if watch_text:
                sample.read(tokenizer, settings)
            if sample.finish is None and len(sample.tokens) >= settings.most_tokens:
                sample.finish = "max_new_tokens"
