"""Tokenizers: the artifact is a Hugging Face ``tokenizer.json``; byte-level BPE is encoded by `gigatoken`.

Ids equal those of Hugging Face `tokenizers` for the same file, which itself does what `gigatoken` does not: words and
characters. As there, the text ``<|endoftext|>`` inside a document becomes the end-of-text token: corpora that carry it
as a separator mean just that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import awkward as ak
import gigatoken
import numpy as np
import numpy.typing as npt
import tokenizers

from jobs.corpus.texts import Texts
from jobs.errors import InputError

END_OF_TEXT = "<|endoftext|>"

Ids = npt.NDArray[np.unsignedinteger]


class _Backend(Protocol):
    """What encodes and decodes."""

    vocab_size: int
    unknown_id: int | None

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Ids of all documents, and the offsets at which each begins, and the last ends."""

    def decode(self, ids: npt.NDArray[np.uint32]) -> str:
        """The text of ids that are in the vocabulary."""

    def unknown(self, text: str) -> list[str]:
        """What of `text` is not in the vocabulary."""


class _BytePairs:
    """Byte-level BPE by `gigatoken`."""

    unknown_id: int | None = None  # every byte is a token

    def __init__(self, json_bytes: bytes) -> None:
        self._tokenizer = gigatoken.Tokenizer.from_json(json_bytes)
        self.vocab_size: int = self._tokenizer.vocab_size

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        encoded = self._tokenizer.encode_batch(_byte_strings(Texts.of(documents)), parallel=parallel).layout
        offsets = np.asarray(encoded.offsets.data, dtype=np.int64)
        return np.asarray(encoded.content.data)[offsets[0] : offsets[-1]], offsets - offsets[0]

    def decode(self, ids: npt.NDArray[np.uint32]) -> str:
        return self._tokenizer.decode(ids).decode("utf-8", errors="replace")

    def unknown(self, text: str) -> list[str]:
        return []


class _Units:
    """Any other kind, by `tokenizers`."""

    def __init__(self, json_bytes: bytes) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(json_bytes.decode())
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        self.unknown_id: int | None = self._tokenizer.token_to_id(unknown) if unknown else None

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if parallel else "false"  # read at each call
        texts = [document.decode() for document in documents]
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids = [np.array(one.ids, np.uint32) for one in encoded]
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        return np.concatenate([np.zeros(0, np.uint32), *ids]), offsets

    def decode(self, ids: npt.NDArray[np.uint32]) -> str:
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def unknown(self, text: str) -> list[str]:
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        pairs = zip(encoded.ids, encoded.offsets, strict=True)
        return [text[start:stop] for one, (start, stop) in pairs if one == self.unknown_id]


class Tokenizer:
    """Text to token ids and back. Can be pickled: it travels as its ``tokenizer.json``."""

    def __init__(self, json_bytes: bytes, where: str = "tokenizer.json") -> None:
        self.json = json_bytes
        """Content of the ``tokenizer.json``."""
        kind, end_of_text = _kind_and_end_of_text(json_bytes, where)
        self.end_of_text = end_of_text
        """Id of the token that ends each document."""
        self._backend = _load(json_bytes, kind, where)
        self.vocab_size: int = self._backend.vocab_size
        """One more than the largest id."""
        self.dtype = np.min_scalar_type(self.vocab_size - 1)
        """The smallest unsigned type that holds every id."""
        self.unknown_id = self._backend.unknown_id
        """Id of the token that stands for what is not in the vocabulary; None if nothing is unknown."""

    @classmethod
    def from_json(cls, json_bytes: bytes, where: str = "tokenizer.json") -> Tokenizer:
        """Load the content of a ``tokenizer.json``; `where` names it in errors.

        Raises:
            InputError: if it is not one, cannot be loaded, or has no end-of-text token.
        """
        return cls(json_bytes, where)

    def encode(self, text: str) -> Ids:
        """Token ids of `text`, of type `dtype`; no end-of-text token is added."""
        return self.encode_batch([text.encode()], False)[0]

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Encode UTF-8 documents; `parallel` uses every core of the machine.

        Returns:
            The ids of all documents, one after the other, and offsets: document i has ids [offsets[i], offsets[i+1]).
        """
        ids, offsets = self._backend.encode_batch(documents, parallel)
        return ids.astype(self.dtype), offsets

    def decode(self, ids: npt.ArrayLike) -> str:
        """The text of token ids; bytes that are not UTF-8 (a letter cut in two) become U+FFFD.

        Raises:
            ValueError: if an id is not in the vocabulary.
        """
        array = np.asarray(ids, dtype=np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.vocab_size):
            raise ValueError(f"token ids must be in [0, {self.vocab_size})")  # gigatoken would panic
        return self._backend.decode(array.astype(np.uint32))

    def decode_after(self, text: str, ids: npt.ArrayLike) -> str:
        """The text of token ids that go on where `text` ends: a word stands apart from the one before it."""
        if not text or text[-1].isspace():
            return self.decode(ids)
        start = [self.end_of_text]
        return self.decode([*start, *np.asarray(ids, dtype=np.int64)])[len(self.decode(start)) :]

    def unknown(self, text: str) -> list[str]:
        """The words or characters of `text` that are not in the vocabulary, in their order."""
        return self._backend.unknown(text)

    def __reduce__(self) -> tuple[Callable[[bytes], Tokenizer], tuple[bytes]]:
        return _shared, (self.json,)


@lru_cache(maxsize=2)
def _shared(json_bytes: bytes) -> Tokenizer:
    """One tokenizer for all tasks of a process: loading a large vocabulary takes as long as encoding some megabytes."""
    return Tokenizer(json_bytes)


def _byte_strings(texts: Texts) -> ak.Array:
    """Texts as `awkward` has them: `gigatoken` reads these without making a Python object of each."""
    letters = ak.contents.NumpyArray(texts.packed(), parameters={"__array__": "byte"})
    offsets = ak.index.Index64(np.concatenate([[0], np.cumsum(texts.sizes)]))
    return ak.Array(ak.contents.ListOffsetArray(offsets, letters, parameters={"__array__": "bytestring"}))


def _load(json_bytes: bytes, kind: str, where: str) -> _Backend:
    try:
        return _BytePairs(json_bytes) if kind == "BPE" else _Units(json_bytes)
    except Exception as error:  # noqa: BLE001 - `tokenizers` raises nothing narrower
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: not a tokenizer that can be used here ({reason})") from None


def _kind_and_end_of_text(json_bytes: bytes, where: str) -> tuple[str, int]:
    """What kind of model a ``tokenizer.json`` has, and the id of the token that ends each document."""
    try:
        values = json.loads(json_bytes)
        kind = values["model"].get("type", "BPE")
        ids = [int(token["id"]) for token in values.get("added_tokens") or [] if token["content"] == END_OF_TEXT]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{where}: not a tokenizer.json (Hugging Face tokenizers)") from None
    if not ids:
        raise InputError(f"{where}: has no special token {END_OF_TEXT}, which must end each document")
    return kind, ids[0]
