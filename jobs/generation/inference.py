"""The forms in which a trained model generates text: the fused transformer, or a context model with a sliding window.

Shapes in comments: B sequences, C tokens of context, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jobs.errors import InputError
from jobs.generation.decoder import InferenceLlama
from jobs.model.context import ContextModel
from jobs.model.language_model import LanguageModel, autocast
from jobs.model.llama import Llama


def to_inference(model: LanguageModel, dtype: str = "float32") -> InferenceModel:
    """Convert a trained model in evaluation mode to the form that generates text.

    `dtype` is the type of the matrix products: ``float32`` or ``bfloat16``. For a transformer, it may also be ``int8``:
    the weights are then 8-bit integers.
    """
    if isinstance(model, Llama):
        return InferenceLlama(model, dtype)
    if dtype == "int8":
        raise InputError("generate.dtype=int8 needs model.kind=transformer; use float32 or bfloat16")
    assert isinstance(model, ContextModel)
    return InferenceContext(model, dtype)


class InferenceContext:
    """A context model for generation. It computes matrix products in the type `dtype_name`."""

    accepts_long_prompts = True
    """Whether the context is a sliding window. A prompt may then be longer: the model reads only its last tokens."""

    def __init__(self, model: ContextModel, dtype_name: str) -> None:
        self._model = model
        self._dtype: torch.dtype = getattr(torch, dtype_name)
        self.num_positions, self.vocab_size = model.config.num_positions, model.config.vocab_size

    def stream(self) -> SlidingStream:
        """Return a new `SlidingStream` without sequences."""
        return SlidingStream(self)

    def windows(self, contexts: Sequence[Sequence[int]]) -> Tensor:
        """Return the last C tokens of each context (B, C). Shorter contexts are padded on the left with end-of-text."""
        size, end_of_text = self.num_positions, self._model.config.end_of_text
        rows = [[end_of_text] * (size - len(context)) + list(context[-size:]) for context in contexts]
        return torch.tensor(rows, dtype=torch.long, device=self._model.embeddings.device).view(len(contexts), size)

    def next_logits(self, contexts: Tensor) -> Tensor:
        """Return the logits (B, V), float32, of the token after each of `contexts` (B, C)."""
        with autocast(contexts.device, self._dtype):
            return self._model.next_logits(contexts)


class SlidingStream:
    """The last C tokens of each sequence, and the logits (B, V) of each sequence's next token.

    A prompt that is shorter than the context is padded with end-of-text on its left, like the beginning of a document.
    """

    def __init__(self, model: InferenceContext) -> None:
        self._model = model
        self._windows = model.windows([])
        self.logits = torch.zeros(0, model.vocab_size, device=self._windows.device)

    def join(self, contexts: Sequence[Sequence[int]]) -> None:
        """Add sequences after the existing ones."""
        windows = self._model.windows(contexts)
        self._windows = torch.cat((self._windows, windows))
        self.logits = torch.cat((self.logits, self._model.next_logits(windows)))

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only the sequences `rows`, in this order."""
        self._windows, self.logits = self._windows[list(rows)], self.logits[list(rows)]

    def feed(self, tokens: Tensor) -> None:
        """Append to each sequence its token of `tokens` (B), and compute the logits of the token that follows."""
        self._windows = torch.cat((self._windows[:, 1:], tokens[:, None]), dim=1)
        self.logits = self._model.next_logits(self._windows)


InferenceModel = InferenceLlama | InferenceContext
"""A model that generates text. Its method `stream` returns an empty batch of sequences. `join` adds sequences to this
batch, `keep` keeps some of them, `feed` appends a token to each, and `logits` are the logits of the next tokens."""
