"""A byte-level BPE tokenizer: `gigatoken` does the work, a Hugging Face ``tokenizer.json`` is the artifact.

Its ids equal those of Hugging Face `tokenizers` for the same file. As there, the text ``<|endoftext|>`` inside a
document becomes the end-of-text token: corpora that carry it as a separator mean just that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache

import gigatoken
import numpy as np
import numpy.typing as npt

from jobs.errors import InputError

END_OF_TEXT = "<|endoftext|>"

Ids = npt.NDArray[np.unsignedinteger]


class Tokenizer:
    """Text to token ids and back. Can be pickled: it travels as its ``tokenizer.json``."""

    def __init__(self, json_bytes: bytes, where: str = "tokenizer.json") -> None:
        self.json = json_bytes
        """Content of the ``tokenizer.json``."""
        self.end_of_text = _end_of_text(json_bytes, where)
        """Id of the token that ends each document."""
        try:
            self._tokenizer = gigatoken.Tokenizer.from_json(json_bytes)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{where}: not a tokenizer that can be used here ({reason})") from None
        self.vocab_size: int = self._tokenizer.vocab_size
        """One more than the largest id."""
        self.dtype = np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)
        """The smallest unsigned type that holds every id."""

    @classmethod
    def from_json(cls, json_bytes: bytes, where: str = "tokenizer.json") -> Tokenizer:
        """Load the content of a ``tokenizer.json``; `where` names it in errors.

        Raises:
            InputError: if it is not one, is of a kind that `gigatoken` lacks, or has no end-of-text token.
        """
        return cls(json_bytes, where)

    def encode(self, text: str) -> Ids:
        """Token ids of `text`, of type `dtype`; no end-of-text token is added."""
        return self._tokenizer.encode(text).astype(self.dtype)

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Encode UTF-8 documents; `parallel` uses every core of the machine.

        Returns:
            The ids of all documents, one after the other, and offsets: document i has ids [offsets[i], offsets[i+1]).
        """
        encoded = self._tokenizer.encode_batch(list(documents), parallel=parallel).layout
        offsets = np.asarray(encoded.offsets.data, dtype=np.int64)
        ids = np.asarray(encoded.content.data)[offsets[0] : offsets[-1]]
        return ids.astype(self.dtype), offsets - offsets[0]

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of token ids; bytes that are not UTF-8 (a letter cut in two) become U+FFFD.

        Raises:
            ValueError: if an id is not in the vocabulary.
        """
        array = np.asarray(ids, dtype=np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.vocab_size):
            raise ValueError(f"token ids must be in [0, {self.vocab_size})")  # gigatoken would panic
        return self._tokenizer.decode(array.astype(np.uint32)).decode("utf-8", errors="replace")

    def __reduce__(self) -> tuple[Callable[[bytes], Tokenizer], tuple[bytes]]:
        return _shared, (self.json,)


@lru_cache(maxsize=2)
def _shared(json_bytes: bytes) -> Tokenizer:
    """One tokenizer for all tasks of a process: loading a large vocabulary takes as long as encoding some megabytes."""
    return Tokenizer(json_bytes)


def _end_of_text(json_bytes: bytes, where: str) -> int:
    """Id of the special token ``<|endoftext|>`` in a ``tokenizer.json``."""
    try:
        values = json.loads(json_bytes)
        ids = [token["id"] for token in values.get("added_tokens") or [] if token["content"] == END_OF_TEXT]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{where}: not a tokenizer.json (Hugging Face tokenizers)") from None
    if not ids:
        raise InputError(f"{where}: has no special token {END_OF_TEXT}, which must end each document")
    return int(ids[0])
