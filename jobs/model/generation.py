"""Text from a model: prefill the prompt once, then decode token by token with cached keys and values.

All samples of a prompt are one batch. The context is as long as the model has positions: of a longer prompt the last
tokens are kept; when the context is full while decoding, its later half is kept and decoding goes on.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jobs.config import GenerateConfig
from jobs.model.llama import KeyValueCache, Llama
from jobs.model.sampling import Sampler
from jobs.tokens.tokenizer import Tokenizer

log = logging.getLogger(__name__)

MOST_TOKENS_PER_WORD = 16


@dataclass(frozen=True)
class Settings:
    """How to continue a prompt; as in the configuration's section `generate`."""

    max_new_words: int = 20
    max_new_tokens: int | None = None
    temperature: float = 0.8
    top_k: int | None = 50
    seed: int = 0

    @classmethod
    def of(cls, config: GenerateConfig) -> Settings:
        """The settings of a run."""
        return cls(**config.model_dump(exclude={"prompts", "num_samples"}))

    @property
    def most_tokens(self) -> int:
        """After so many tokens a continuation ends in any case: a model need not ever finish a word."""
        return self.max_new_tokens or self.max_new_words * MOST_TOKENS_PER_WORD


@dataclass
class Sample:
    """A continuation: `text` without the prompt, and the ids and log probabilities (nats) of all tokens drawn.

    `log_probabilities` are the model's own, before temperature and top-k. `tokens` may go on behind `text`, which ends
    with a word when words are counted. `prompt_tokens_dropped` did not fit into the context.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    prompt_tokens_dropped: int = 0
    finished: bool = False


@dataclass(frozen=True)
class Generated:
    """The samples of one prompt, and how fast they were made."""

    samples: list[Sample]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all samples over the time from the prompt to the last."""
        return sum(len(sample.tokens) for sample in self.samples) / self.seconds


@torch.inference_mode()
def generate(
    model: Llama,
    tokenizer: Tokenizer,
    prompt: str,
    settings: Settings,
    *,
    prompt_index: int = 0,
    sample_indices: range = range(1),
) -> Generated:
    """Continue `prompt` once for each of `sample_indices`.

    A sample is decided by the settings, the prompt, and the two indices. An empty prompt starts from end-of-text.
    """
    started = time.perf_counter()
    context, dropped = prompt_tokens(model, tokenizer, prompt)
    samples = [Sample(prompt_tokens_dropped=dropped) for _ in sample_indices]
    keys = [(settings.seed, prompt_index, index) for index in sample_indices]
    sampler = Sampler(settings.temperature, settings.top_k, keys)
    stream = _Stream(model, context.expand(len(samples), -1))
    for _ in range(settings.most_tokens):
        tokens = sampler.draw(stream.logits)
        log_probabilities = stream.logits.log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)
        for sample, token, log_probability in zip(samples, tokens.tolist(), log_probabilities.tolist(), strict=True):
            if not sample.finished:
                sample.tokens.append(token)
                sample.log_probabilities.append(log_probability)
                sample.text, sample.finished = continuation(sample.tokens, tokenizer, prompt, settings)
        if all(sample.finished for sample in samples):
            break
        stream.feed(tokens)
    return Generated(samples, time.perf_counter() - started)


def prompt_tokens(model: Llama, tokenizer: Tokenizer, prompt: str) -> tuple[Tensor, int]:
    """The prompt's tokens (1, T) as far as they fit, and the number of earlier ones that do not."""
    ids = tokenizer.encode(prompt).tolist() or [tokenizer.end_of_text]
    dropped = max(0, len(ids) - model.config.num_positions)
    if dropped:
        log.warning("the prompt has %d tokens, the model %d positions: the first %d tokens are left out",
                    len(ids), model.config.num_positions, dropped)  # fmt: skip
    return torch.tensor([ids[dropped:]], device=model.output_weight.device), dropped


def continuation(tokens: list[int], tokenizer: Tokenizer, prompt: str, settings: Settings) -> tuple[str, bool]:
    """The text of `tokens` as far as the settings let it go, and whether nothing can follow."""
    ended = bool(tokens) and tokens[-1] == tokenizer.end_of_text
    text = tokenizer.decode(tokens[:-1] if ended else tokens)
    if settings.max_new_tokens is not None:
        return text, ended or len(tokens) >= settings.max_new_tokens
    end = end_of_words(prompt, text, settings.max_new_words)
    return (text, ended) if end is None else (text[:end], True)


def end_of_words(prompt: str, text: str, num_words: int) -> int | None:
    """Where in `text`, which continues `prompt`, its word number `num_words` ends; None if it is not complete.

    A word is what stands between spaces, and complete when a space follows. Letters that continue the prompt's last
    word are no new word.
    """
    last_word = re.search(r"\S*$", prompt)
    offset = len(last_word.group()) if last_word else 0
    words = [match for match in re.finditer(r"\S+", prompt[len(prompt) - offset :] + text) if match.start() >= offset]
    if len(words) < num_words:
        return None
    end = words[num_words - 1].end() - offset
    return end if end < len(text) else None


class _Stream:
    """Feeds tokens to the model; `logits` (B, V) are those of the next token."""

    def __init__(self, model: Llama, context: Tensor) -> None:
        self._model = model
        self._context = context
        self.logits = self._prefill()

    def feed(self, tokens: Tensor) -> None:
        """Let `tokens` (B) follow."""
        self._context = torch.cat((self._context, tokens[:, None]), dim=1)
        if self._cache.length == self._model.config.num_positions:
            self._context = self._context[:, -max(1, self._model.config.num_positions // 2) :]
            self.logits = self._prefill()
        else:
            self.logits = self._forward(tokens[:, None])

    def _prefill(self) -> Tensor:
        self._cache: KeyValueCache = self._model.new_cache(len(self._context))
        return self._forward(self._context)

    def _forward(self, tokens: Tensor) -> Tensor:
        return self._model.next_logits(tokens, self._cache).float()
