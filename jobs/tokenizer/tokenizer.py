"""Converts text to token ids and back, by a tokenizer stored as a Hugging Face ``tokenizer.json``.

The ids are those that Hugging Face `tokenizers` gives for the same file, even if another library encodes the text. As
in `tokenizers`, the text ``<|endoftext|>`` inside a document becomes the end-of-text token, because corpora use it as a
separator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from jobs.corpus.texts import Offsets
from jobs.errors import InputError
from jobs.tokenizer.definition import Definition, UnusableError
from jobs.tokenizer.encoders import FastEncoder, ReferenceEncoder, fast_encoder

TokenIds = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class _Opened:
    """A ``tokenizer.json`` and its encoder, shared by all `Tokenizer` objects of a process."""

    definition: Definition
    fast: FastEncoder | None
    slow_because: str


class Tokenizer:
    """Converts text to token ids and back. A tokenizer is pickled as its ``tokenizer.json``.

    Raises:
        InputError: if the file cannot be loaded, or has no end-of-text token. The message begins with `where`.
    """

    def __init__(self, json_bytes: bytes, where: str = "tokenizer.json") -> None:
        try:
            self._opened = _open(json_bytes)
        except UnusableError as error:
            raise InputError(f"{where}: {error}") from None
        definition, fast = self._opened.definition, self._opened.fast
        self.definition = definition
        """The parsed ``tokenizer.json``."""
        self.json = definition.json
        """The content of the ``tokenizer.json``, without call-time settings."""
        self.end_of_text = definition.end_of_text
        """The id of the end-of-text token, which ends each document."""
        self.vocab_size = 1 + max(definition.reference.get_vocab(with_added_tokens=True).values())
        """One more than the largest id."""
        self.dtype = np.min_scalar_type(self.vocab_size - 1)
        """The smallest unsigned type that holds every id."""
        self.unknown_id = None if fast else definition.unknown_id
        """The id of the unknown token. None if the tokenizer has none, or if no text can become the unknown token."""
        self._encoder = fast or ReferenceEncoder(definition.reference)

    def encode(self, text: str) -> TokenIds:
        """Return the token ids of `text`, of type `dtype`. No end-of-text token is added."""
        return self.encode_batch([text.encode()], False)[0]

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[TokenIds, Offsets]:
        """Encode UTF-8 documents, on all cores of the machine if `parallel` is true.

        Returns:
            The ids of all documents in one array, and offsets: document i has the ids [offsets[i], offsets[i + 1]).
        """
        ids, offsets = self._encoder.encode_batch(documents, parallel)
        return ids.astype(self.dtype), offsets

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text of token ids. Bytes that are not UTF-8, such as part of a character, become U+FFFD."""
        array = np.asarray(ids, dtype=np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.vocab_size):
            raise ValueError(f"token ids must be in [0, {self.vocab_size})")  # gigatoken panics on others
        if self._opened.fast and self._opened.fast.decodes:
            return self._opened.fast.decode(array.astype(np.uint32))
        return str(self.definition.reference.decode(array.tolist(), skip_special_tokens=False))

    def decode_after(self, text: str, ids: npt.ArrayLike) -> str:
        """Return the text of token ids that continue `text`.

        The returned text begins with a space if its first word has to be separated from `text`.
        """
        if not text or text[-1].isspace():
            return self.decode(ids)
        start = [self.end_of_text]
        return self.decode([*start, *np.asarray(ids, dtype=np.int64)])[len(self.decode(start)) :]

    def unknown(self, text: str) -> list[str]:
        """Return the words or characters of `text` that are not in the vocabulary, in the order of the text."""
        if self.unknown_id is None:
            return []
        encoded = self.definition.reference.encode(text, add_special_tokens=False)
        pairs = zip(encoded.ids, encoded.offsets, strict=True)
        return [text[start:stop] for one, (start, stop) in pairs if one == self.unknown_id]

    def remarks(self) -> list[str]:
        """Return warnings for the user who provides this ``tokenizer.json``.

        They name ignored settings, say why encoding is slow, and say if some characters cannot be encoded.
        """
        definition = self.definition
        remarks = []
        if definition.removed:
            remarks.append(
                f"call-time settings are not part of the tokenizer and are ignored: {', '.join(definition.removed)}"
            )
        if self._opened.slow_because:
            remarks.append(
                f"texts are encoded by the library tokenizers, more slowly than by gigatoken, which cannot be used:"
                f" {self._opened.slow_because}"
            )
        if uncovered := definition.uncovered():
            remarks.append(uncovered)
        return remarks

    def __reduce__(self) -> tuple[Callable[[bytes], Tokenizer], tuple[bytes]]:
        return _shared, (self.json,)


@lru_cache(maxsize=2)
def _shared(json_bytes: bytes) -> Tokenizer:
    """Return a tokenizer that all tasks of a process share, because loading a large vocabulary is slow."""
    return Tokenizer(json_bytes)


@lru_cache(maxsize=2)
def _open(json_bytes: bytes) -> _Opened:
    definition = Definition.parse(json_bytes)
    return _Opened(definition, *fast_encoder(definition))
