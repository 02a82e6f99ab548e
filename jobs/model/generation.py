"""Text from a model: prefill the prompts once, then decode token by token with cached keys and values.

Sequences of one batch may have prompts of different lengths. The context is as long as the model has positions: of a
longer prompt the last tokens are kept; when a sequence's context is full while decoding, its later half is kept and
decoding goes on.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.model.continuation import Continuation, Settings
from jobs.model.inference import COLUMNS_STEP, InferenceLlama
from jobs.model.sampling import Sampler
from jobs.tokens.tokenizer import Tokenizer

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
    model: InferenceLlama,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    settings: Settings,
    listen: Callable[[Sequence[Continuation]], None] | None = None,
) -> Generated:
    """Make all continuations of `requests` in one batch; `listen` is called after each token.

    An empty prompt starts from end-of-text.
    """
    started = time.perf_counter()
    prompts = [prompt_tokens(tokenizer, request.prompt, model.config.num_positions) for request in requests]
    samples = [Continuation(request.prompt, dropped) for request, (_, dropped) in zip(requests, prompts, strict=True)]
    sampler = Sampler(settings.sampling, [(settings.seed, each.prompt_index, each.sample) for each in requests])
    stream = TokenStream(model, [ids for ids, _ in prompts], settings.most_tokens)
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


def prompt_tokens(tokenizer: Tokenizer, prompt: str, num_positions: int) -> tuple[list[int], int]:
    """The prompt's tokens as far as they fit, and the number of earlier ones that do not."""
    ids: list[int] = tokenizer.encode(prompt).tolist() or [tokenizer.end_of_text]
    dropped = max(0, len(ids) - num_positions)
    if dropped:
        log.warning("the prompt has %d tokens, the model %d positions: the first %d tokens are left out",
                    len(ids), num_positions, dropped)  # fmt: skip
    return ids[dropped:], dropped


class TokenStream:
    """Feeds tokens to the model; `logits` (B, V), float32, are those of each sequence's next token."""

    def __init__(self, model: InferenceLlama, contexts: Sequence[Sequence[int]], most_tokens: int) -> None:
        """`most_tokens` is how many will be fed: the cache need not be longer."""
        self._model = model
        self._contexts = [list(context) for context in contexts]
        columns = math.ceil((max(map(len, contexts)) + most_tokens) / COLUMNS_STEP) * COLUMNS_STEP
        self._cache = model.new_cache(len(contexts), min(columns, model.config.num_positions))
        self.logits = self._prefill()

    def seen(self) -> Tensor:
        """Which tokens (B, V), boolean, each context holds."""
        seen = torch.zeros_like(self.logits, dtype=torch.bool)
        for row, context in zip(seen, self._contexts, strict=True):
            row[context] = True
        return seen

    def feed(self, tokens: Tensor) -> None:
        """Let `tokens` (B) follow."""
        for context, token in zip(self._contexts, tokens.tolist(), strict=True):
            context.append(token)
        if self._cache.longest < self._model.config.num_positions:
            self.logits = self._model.decode(tokens, self._cache)
        else:
            self._contexts = [self._fitting(context) for context in self._contexts]
            self.logits = self._prefill()

    def _fitting(self, context: list[int]) -> list[int]:
        """The context, or its later half if it is too long."""
        num_positions = self._model.config.num_positions
        return context if len(context) <= num_positions else context[-max(1, num_positions // 2) :]

    def _prefill(self) -> Tensor:
        lengths = [len(context) for context in self._contexts]
        rows = [context + [0] * (max(lengths) - len(context)) for context in self._contexts]
        device = self._model.device
        return self._model.prefill(torch.tensor(rows, device=device), torch.tensor(lengths, device=device), self._cache)


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
