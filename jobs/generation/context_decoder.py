"""Context models for generation: a window slides over the text, and each token is computed from the whole window.

A prompt that is shorter than the context is padded with end-of-text on its left, like the beginning of a document.

Shapes in comments: B sequences, C tokens of context, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jobs.model.context import ContextModel
from jobs.model.language_model import autocast


class InferenceContext:
    """A context model, with the type of its matrix products."""

    def __init__(self, model: ContextModel, dtype_name: str = "float32") -> None:
        self._model = model
        self._dtype: torch.dtype = getattr(torch, dtype_name)
        self.end_of_text = model.config.end_of_text
        self.device = model.embeddings.device

    @property
    def num_positions(self) -> int:
        """Return the length of the context in tokens."""
        return self._model.config.num_positions

    def stream(self, contexts: Sequence[Sequence[int]], max_tokens: int) -> SlidingStream:
        """Start sequences with `contexts`; there is no limit on the number of tokens that follow."""
        return SlidingStream(self, contexts)

    def next_logits(self, contexts: Tensor) -> Tensor:
        """Return the logits (B, V), float32, of the token after each of `contexts` (B, C)."""
        with autocast(self.device, self._dtype):
            return self._model.next_logits(contexts)


class SlidingStream:
    """The last C tokens of each sequence, and the logits of the next one."""

    def __init__(self, model: InferenceContext, contexts: Sequence[Sequence[int]]) -> None:
        self._model = model
        size = model.num_positions
        rows = [[model.end_of_text] * (size - len(context)) + list(context[-size:]) for context in contexts]
        self._windows = torch.tensor(rows, device=model.device)
        self.logits = model.next_logits(self._windows)

    def feed(self, tokens: Tensor) -> None:
        """Append one of `tokens` (B) to each sequence, and compute the logits after it."""
        self._windows = torch.cat((self._windows[:, 1:], tokens[:, None]), dim=1)
        self.logits = self._model.next_logits(self._windows)
