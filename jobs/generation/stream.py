"""The interface between a model and the generation of text: sequences that are extended token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class TokenStream(Protocol):
    """A batch of sequences, with the logits of the next token of each."""

    logits: Tensor
    """Logits (B, V), float32."""

    def feed(self, tokens: Tensor) -> None:
        """Append one of `tokens` (B) to each sequence, and compute the logits after it."""


class InferenceModel(Protocol):
    """A model in the form that generates text."""

    @property
    def num_positions(self) -> int:
        """Return the length of the context in tokens."""

    def stream(self, contexts: Sequence[Sequence[int]], max_tokens: int) -> TokenStream:
        """Start a batch of sequences.

        Args:
            contexts: The tokens of the prompts, at most `num_positions` each.
            max_tokens: The largest number of tokens that will be fed.
        """
