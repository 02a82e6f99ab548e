"""Tokenizers, stored as a Hugging Face ``tokenizer.json``: text to token ids and back.

`gigatoken` encodes byte-level BPE; Hugging Face `tokenizers` encodes words and characters, which `gigatoken` cannot.
Both give the same ids for the same file. As in `tokenizers`, the text ``<|endoftext|>`` inside a document becomes the
end-of-text token, since corpora use it as a separator.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import awkward as ak
import gigatoken
import numpy as np
import numpy.typing as npt
import tokenizers

from jobs.corpus.texts import Offsets, Texts
from jobs.errors import InputError

END_OF_TEXT = "<|endoftext|>"

TokenIds = npt.NDArray[np.unsignedinteger]


class _BytePairs:
    """Byte-level BPE, encoded by `gigatoken`."""

    unknown_id: int | None = None  # every byte is a token

    def __init__(self, json_bytes: bytes) -> None:
        self._tokenizer = gigatoken.Tokenizer.from_json(json_bytes)
        self.vocab_size: int = self._tokenizer.vocab_size

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[npt.NDArray[Any], Offsets]:
        texts = Texts.of(documents)
        # `gigatoken` reads an `awkward` array without making a Python object of each text.
        characters = ak.contents.NumpyArray(texts.packed(), parameters={"__array__": "byte"})
        starts = ak.index.Index64(np.concatenate([[0], np.cumsum(texts.sizes)]))
        strings = ak.Array(ak.contents.ListOffsetArray(starts, characters, parameters={"__array__": "bytestring"}))
        encoded = self._tokenizer.encode_batch(strings, parallel=parallel).layout
        offsets = np.asarray(encoded.offsets.data, dtype=np.int64)
        return np.asarray(encoded.content.data)[offsets[0] : offsets[-1]], offsets - offsets[0]

    def decode(self, ids: npt.NDArray[np.uint32]) -> str:
        return self._tokenizer.decode(ids).decode("utf-8", errors="replace")

    def unknown(self, text: str) -> list[str]:
        return []


class _Units:
    """Words, characters and other kinds, encoded by `tokenizers`."""

    def __init__(self, json_bytes: bytes) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(json_bytes.decode())
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        self.unknown_id: int | None = self._tokenizer.token_to_id(unknown) if unknown else None

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[npt.NDArray[Any], Offsets]:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if parallel else "false"  # `tokenizers` reads it at each call
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
    """Converts text to token ids and back; pickled as its ``tokenizer.json``.

    A file that cannot be loaded, or has no end-of-text token, is refused by an InputError that names it as `where`.
    """

    def __init__(self, json_bytes: bytes, where: str = "tokenizer.json") -> None:
        self.json = json_bytes
        """The content of the ``tokenizer.json``."""
        backend, self.end_of_text = _backend_and_end_of_text(json_bytes, where)
        """The id of the end-of-text token, which ends each document."""
        try:
            self._backend = backend(json_bytes)
        except Exception as error:  # noqa: BLE001 - `tokenizers` raises nothing narrower
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{where}: this tokenizer cannot be loaded ({reason}); give another tokenizer.json"
            ) from None
        self.vocab_size: int = self._backend.vocab_size
        """One more than the largest id."""
        self.dtype = np.min_scalar_type(self.vocab_size - 1)
        """The smallest unsigned type that holds every id."""
        self.unknown_id = self._backend.unknown_id
        """The id of the unknown token; None if every text can be encoded."""

    def encode(self, text: str) -> TokenIds:
        """Return the token ids of `text`, of type `dtype`; no end-of-text token is added."""
        return self.encode_batch([text.encode()], False)[0]

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[TokenIds, Offsets]:
        """Encode UTF-8 documents; with `parallel`, on all cores of the machine.

        Returns:
            The ids of all documents in one array, and offsets: document i has the ids [offsets[i], offsets[i + 1]).
        """
        ids, offsets = self._backend.encode_batch(documents, parallel)
        return ids.astype(self.dtype), offsets

    def decode(self, ids: npt.ArrayLike) -> str:
        """Return the text of token ids; bytes that are not UTF-8, such as part of a character, become U+FFFD."""
        array = np.asarray(ids, dtype=np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.vocab_size):
            raise ValueError(f"token ids must be in [0, {self.vocab_size})")  # gigatoken panics on others
        return self._backend.decode(array.astype(np.uint32))

    def decode_after(self, text: str, ids: npt.ArrayLike) -> str:
        """Return the text of token ids that continue `text`, with the space that their first word needs."""
        if not text or text[-1].isspace():
            return self.decode(ids)
        start = [self.end_of_text]
        return self.decode([*start, *np.asarray(ids, dtype=np.int64)])[len(self.decode(start)) :]

    def unknown(self, text: str) -> list[str]:
        """Return the words or characters of `text` that are not in the vocabulary, in their order."""
        return self._backend.unknown(text)

    def __reduce__(self) -> tuple[Callable[[bytes], Tokenizer], tuple[bytes]]:
        return _shared, (self.json,)


@lru_cache(maxsize=2)
def _shared(json_bytes: bytes) -> Tokenizer:
    """Return one tokenizer for all tasks of a process: loading a large vocabulary is slow."""
    return Tokenizer(json_bytes)


def _backend_and_end_of_text(json_bytes: bytes, where: str) -> tuple[type[_BytePairs | _Units], int]:
    """Return the class for the model in a ``tokenizer.json``, and the id of its end-of-text token."""
    try:
        values = json.loads(json_bytes)
        backend = _BytePairs if values["model"].get("type", "BPE") == "BPE" else _Units
        ids = [int(token["id"]) for token in values.get("added_tokens") or [] if token["content"] == END_OF_TEXT]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{where}: not a tokenizer.json of Hugging Face tokenizers; give another file") from None
    if not ids:
        raise InputError(
            f"{where}: has no special token {END_OF_TEXT}, which ends each document; add it or give another file"
        )
    return backend, ids[0]
