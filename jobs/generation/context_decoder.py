"""A context model for generating: its window slides over the text, and each token is computed from the whole window.

A prompt that is shorter than the context is padded with end-of-text on its left: so it reads as a document's beginning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jobs.generation.stream import seen_tokens
from jobs.model.context import ContextModel
from jobs.model.language_model import autocast


class InferenceContext:
    """A context model and the arithmetic of its matrix products."""

    def __init__(self, model: ContextModel, dtype_name: str = "float32") -> None:
        self._model = model
        self._dtype: torch.dtype = getattr(torch, dtype_name)
        self.end_of_text = model.config.end_of_text
        self.device = model.embeddings.device

    @property
    def num_positions(self) -> int:
        """Tokens of context."""
        return self._model.config.num_positions

    def stream(self, contexts: Sequence[Sequence[int]], most_tokens: int) -> SlidingStream:
        """Start sequences with `contexts`."""
        return SlidingStream(self, contexts)

    def next_logits(self, contexts: Tensor) -> Tensor:
        """Logits (B, V), float32, of the token after each of `contexts` (B, C)."""
        with autocast(self.device, self._dtype):
            return self._model.next_logits(contexts)


class SlidingStream:
    """The last C tokens of each sequence (B, C), and the logits of its next."""

    def __init__(self, model: InferenceContext, contexts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._started = contexts
        size = model.num_positions
        rows = [[model.end_of_text] * (size - len(context)) + list(context[-size:]) for context in contexts]
        self._windows = torch.tensor(rows, device=model.device)
        self.logits = model.next_logits(self._windows)

    def seen(self) -> Tensor:
        """Which tokens (B, V), boolean, each sequence started with."""
        return seen_tokens(self._started, self.logits)

    def feed(self, tokens: Tensor) -> None:
        """Let `tokens` (B) follow."""
        self._windows = torch.cat((self._windows[:, 1:], tokens[:, None]), dim=1)
        self.logits = self._model.next_logits(self._windows)
