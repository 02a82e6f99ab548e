"""What has been said so far of one continuation, where it ends, and how much of it can be shown already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from jobs.config import GenerateConfig
from jobs.generation.sampling import Sampling
from jobs.sources.utf8 import REPLACEMENT
from jobs.tokenizer.tokenizer import Tokenizer

MOST_TOKENS_PER_WORD = 16

Finish = Literal["end_of_text", "max_new_tokens", "max_new_words", "stop"]


@dataclass(frozen=True)
class Settings:
    """How to continue a prompt; as in the configuration's section `generate`."""

    max_new_words: int = GenerateConfig().max_new_words
    max_new_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    seed: int = 0

    @classmethod
    def of(cls, config: GenerateConfig) -> Settings:
        """The settings of a run."""
        names = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
        sampling = Sampling(**{name: getattr(config, name) for name in names})
        return cls(config.max_new_words, config.max_new_tokens, sampling, config.stop, config.seed)

    @property
    def most_tokens(self) -> int:
        """After so many tokens a continuation ends in any case: a model need not ever finish a word."""
        return self.max_new_tokens or self.max_new_words * MOST_TOKENS_PER_WORD

    @property
    def watch_text(self) -> bool:
        """Whether the text, not only the tokens, tells when to end."""
        return self.max_new_tokens is None or bool(self.stop)


@dataclass
class Continuation:
    """A continuation of `prompt`: `text` without it, and the ids and log probabilities (nats) of all tokens drawn.

    `log_probabilities` are the model's own, before anything that `Sampling` does. `tokens` may go on behind `text`,
    which ends with a word when words are counted, and before a stop string. `prompt_tokens_dropped` did not fit into
    the context; `unknown_words` of the prompt are not in the vocabulary.
    """

    prompt: str
    prompt_tokens_dropped: int = 0
    unknown_words: Sequence[str] = ()
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    finish: Finish | None = None

    def read(self, tokenizer: Tokenizer, settings: Settings) -> None:
        """Make `text` of the tokens, and end it where the settings say."""
        ended = bool(self.tokens) and self.tokens[-1] == tokenizer.end_of_text
        text = tokenizer.decode_after(self.prompt, self.tokens[:-1] if ended else self.tokens)
        ends: list[tuple[int, Finish]] = [(at, "stop") for stop in settings.stop if (at := text.find(stop)) >= 0]
        if settings.max_new_tokens is None:
            end = end_of_words(self.prompt, text, settings.max_new_words)
            ends += [] if end is None else [(end, "max_new_words")]
        if ends:
            at, self.finish = min(ends)
            text = text[:at]
        self.text = text

    def shown(self, stops: tuple[str, ...]) -> str:
        """As much of `text` as cannot change any more: no half letter, nothing that a stop string may begin with."""
        if self.finish is not None:
            return self.text
        text = self.text.rstrip(REPLACEMENT)  # what a letter is read as whose last bytes are still to come
        held = max((_overlap(text, stop) for stop in stops), default=0)
        return text[: len(text) - held]


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


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
