"""Feeding tokens to a model while text is generated, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jobs.generation.decoder import InferenceLlama, KeyValueCache


class TokenStream(Protocol):
    """The sequences of a batch; `logits` (B, V), float32, are those of each one's next token."""

    logits: Tensor

    def seen(self) -> Tensor:
        """Which tokens (B, V), boolean, each sequence holds."""

    def feed(self, tokens: Tensor) -> None:
        """Let `tokens` (B) follow."""


class InferenceModel(Protocol):
    """A model as it is run for generating."""

    @property
    def num_positions(self) -> int:
        """Tokens of context that it sees."""

    def stream(self, contexts: Sequence[Sequence[int]], most_tokens: int) -> TokenStream:
        """Start sequences with `contexts`, of at most `num_positions` tokens; at most `most_tokens` will be fed."""


class CachedStream:
    """Prefills a decoder once, then decodes with cached keys and values.

    When a sequence's context is full, its later half is kept, the batch is prefilled anew, and decoding goes on.
    """

    def __init__(self, model: InferenceLlama, contexts: Sequence[Sequence[int]], cache: KeyValueCache) -> None:
        self._model = model
        self._contexts = [list(context) for context in contexts]
        self._cache = cache
        self.logits = self._prefill()

    def seen(self) -> Tensor:
        """Which tokens (B, V), boolean, each context holds."""
        return seen_tokens(self._contexts, self.logits)

    def feed(self, tokens: Tensor) -> None:
        """Let `tokens` (B) follow."""
        for context, token in zip(self._contexts, tokens.tolist(), strict=True):
            context.append(token)
        if self._cache.longest < self._model.num_positions:
            self.logits = self._model.decode(tokens, self._cache)
        else:
            self._contexts = [self._fitting(context) for context in self._contexts]
            self.logits = self._prefill()

    def _fitting(self, context: list[int]) -> list[int]:
        """The context, or its later half if it is too long."""
        num_positions = self._model.num_positions
        return context if len(context) <= num_positions else context[-max(1, num_positions // 2) :]

    def _prefill(self) -> Tensor:
        lengths = [len(context) for context in self._contexts]
        rows = [context + [0] * (max(lengths) - len(context)) for context in self._contexts]
        device = self._model.device
        return self._model.prefill(torch.tensor(rows, device=device), torch.tensor(lengths, device=device), self._cache)


def seen_tokens(contexts: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """Which tokens (B, V), boolean, each of `contexts` holds."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, context in zip(seen, contexts, strict=True):
        row[list(context)] = True
    return seen
