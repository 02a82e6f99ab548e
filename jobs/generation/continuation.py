"""The continuation of a prompt: its text so far, why it ended, and the part of the text that cannot change any more."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from jobs.config import GenerateConfig
from jobs.generation.sampling import Sampling
from jobs.sources.utf8 import REPLACEMENT
from jobs.tokenizer.tokenizer import Tokenizer

MAX_TOKENS_PER_WORD = 16

Finish = Literal["end_of_text", "max_new_tokens", "max_new_words", "stop"]


@dataclass(frozen=True)
class GenerationSettings:
    """The settings of a continuation, as in the section `generate` of the configuration."""

    max_new_words: int = GenerateConfig().max_new_words
    max_new_tokens: int | None = None
    min_new_words: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    seed: int = 0
    num_likeliest: int = 0
    """How many of the likeliest tokens to record at each position, with their log probabilities."""

    @classmethod
    def of(cls, config: GenerateConfig) -> GenerationSettings:
        """Return the settings of a run, from its section `generate`."""
        names = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
        sampling = Sampling(**{name: getattr(config, name) for name in names})
        limits = (config.max_new_words, config.max_new_tokens, config.min_new_words or 0)
        return cls(*limits, sampling, config.stop, config.seed)

    @property
    def max_tokens(self) -> int:
        """Return the maximum number of tokens to draw.

        If only the number of words is limited, allow `MAX_TOKENS_PER_WORD` tokens per word, since a word may never end.
        """
        return self.max_new_tokens or self.max_new_words * MAX_TOKENS_PER_WORD


@dataclass
class Continuation:
    """The continuation of one prompt."""

    prompt: str
    prompt_tokens_dropped: int = 0
    """Number of tokens at the beginning of the prompt that did not fit the context."""
    unknown_words: Sequence[str] = ()
    """Words of the prompt that are not in the vocabulary."""
    text: str = ""
    """The text without the prompt, cut before the first stop string, or after the last word that the limit allows."""
    tokens: list[int] = field(default_factory=list)
    """All tokens that were drawn; the last ones may be beyond the end of `text`."""
    log_probabilities: list[float] = field(default_factory=list)
    """The log probability of each token, in nats, in the model's distribution before `Sampling` changes it."""
    likeliest: list[dict[int, float]] = field(default_factory=list)
    """For each position, a dict from ids of the likeliest tokens to their log probabilities, the likeliest first."""
    finish: Finish | None = None
    """The reason why the continuation ended. None while it has not ended."""

    def decode(self, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
        """Decode the tokens to `text`. At a stop string or at the limit of words, cut `text` and set `finish`."""
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

    def has_words(self, num_words: int) -> bool:
        """Return whether `text` has at least `num_words` words. The last word may still be incomplete."""
        return num_words == 0 or len(_new_words(self.prompt, self.text)[0]) >= num_words

    def final_text(self, stops: tuple[str, ...]) -> str:
        """Return the part of `text` that later tokens cannot change.

        It ends neither with an incomplete character nor with the beginning of a stop string.
        """
        if self.finish is not None:
            return self.text
        text = self.text.rstrip(REPLACEMENT)  # an incomplete character is decoded to this one
        held_back = max((_overlap(text, stop) for stop in stops), default=0)
        return text[: len(text) - held_back]


def end_of_words(prompt: str, text: str, num_words: int) -> int | None:
    """Return the index at which the first `num_words` words of `text` end. Return None if the last is not complete.

    Words are separated by white space, and a word is complete when white space follows. Characters that continue the
    last word of `prompt` do not count as a word.
    """
    words, offset = _new_words(prompt, text)
    if len(words) < num_words:
        return None
    end = words[num_words - 1].end() - offset
    return end if end < len(text) else None


def _new_words(prompt: str, text: str) -> tuple[list[re.Match[str]], int]:
    """Find words in the string that consists of the last word of `prompt`, followed by `text`.

    Return the matches of the words that begin in `text`, and the offset of `text` in this string.
    """
    last_word = re.search(r"\S*$", prompt)
    offset = len(last_word.group()) if last_word else 0
    words = re.finditer(r"\S+", prompt[len(prompt) - offset :] + text)
    return [match for match in words if match.start() >= offset], offset


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that is a prefix of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
