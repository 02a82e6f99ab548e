"""Encodes texts by one of two libraries that give the same ids.

Hugging Face `tokenizers` can use every ``tokenizer.json``, and its ids are the correct ones. `gigatoken` is a hundred
times faster, but ignores parts of some ``tokenizer.json`` files. So `fast_encoder` chooses `gigatoken` only if this
library is known to apply every part of the file, and if both libraries give the same ids for probe texts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import awkward as ak
import gigatoken
import numpy as np
import numpy.typing as npt
import tokenizers

from jobs.corpus.texts import Offsets, Texts
from jobs.errors import InputError
from jobs.tokenizer.definition import (
    BYTES,
    END_OF_TEXT,
    Definition,
    UnusableError,
    find_overlap,
    library_errors,
    merges_of,
    parts_of,
)

_BYTE_TOKENS = {f"<0x{byte:02X}>" for byte in range(256)}
_PROBED_TOKENS = 1024
_PROBED_ADDED_TOKENS = 64
_MAX_PAIRS = 1 << 20
# Texts on which tokenizers differ: contractions, digits, runs of whitespace, line ends, marks, scripts without spaces,
# case, control characters, compatibility forms, long words, tokens of other tokenizers.
_PROBES = [
    *("", " ", "a", " a", "a ", "  a", "A b  C   d\n\n\ne\r\nf\t\tg \n h", "don't WE'LL i'm 's"),
    *("12345678 1,234.5 3a \u00b2 \u2167", "snake_case CamelCase http://a.b/c?d=e&f#g", "\x00\x01\x7f"),
    *("x" * 300, "ab" * 99, "=" * 80 + " " * 80 + "=", '{"a": [1]}\n\tif (x) { y(); }  // z\n'),
    *(
        "e\u0301\u0327 \u00e9 \u212b \ufb01",
        "\u1112\u1161\u11ab \ud55c \u6f22\u5b57\u3002\u304b",
        "\u0130 I \u0131 \u017f",
    ),
    *("\U0001f468\u200d\U0001f469 \u2603\ufe0f", "\u00a0\u3000\u2028\u200b\ufeff\x85\x1c", "\U0010ffff\u0378"),
    *("\u0e44\u0e17 \u0939\u093f \u0639\u0631", "\u2581a \u2581 \u0120b ##c </w> <0x41> <s> </s> <unk> [UNK]"),
    *(f"{END_OF_TEXT}a{END_OF_TEXT} {END_OF_TEXT}", f" {END_OF_TEXT} b", "<|endof"),
]


class FastEncoder:
    """Encodes texts with the library `gigatoken`."""

    def __init__(self, definition: Definition) -> None:
        self._tokenizer = gigatoken.Tokenizer.from_json(definition.json)
        decoder = definition.values.get("decoder") or {}
        self.decodes = (
            decoder.get("type") == "ByteLevel"
            and not definition.model.get("byte_fallback")
            and all(token["content"].isascii() for token in definition.values["added_tokens"])
        )
        """True if `decode` is known to give the same text as `tokenizers`."""

    def decode(self, ids: npt.NDArray[np.uint32]) -> str:
        """Return the text of token ids. Each id must be less than the size of the vocabulary."""
        return self._tokenizer.decode(ids).decode("utf-8", errors="replace")

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[npt.NDArray[Any], Offsets]:
        """Encode UTF-8 documents, in several threads if `parallel` is true. Return ids and offsets.

        `Tokenizer.encode_batch` describes the two arrays.
        """
        texts = Texts.of(documents)
        # `gigatoken` reads an `awkward` array without making a Python object of each text.
        characters = ak.contents.NumpyArray(texts.packed(), parameters={"__array__": "byte"})
        starts = ak.index.Index64(np.concatenate([[0], np.cumsum(texts.sizes)]))
        strings = ak.Array(ak.contents.ListOffsetArray(starts, characters, parameters={"__array__": "bytestring"}))
        encoded = self._tokenizer.encode_batch(strings, parallel=parallel).layout
        offsets = np.asarray(encoded.offsets.data, dtype=np.int64)
        return np.asarray(encoded.content.data)[offsets[0] : offsets[-1]], offsets - offsets[0]


class ReferenceEncoder:
    """Encodes texts with the library `tokenizers`."""

    def __init__(self, reference: tokenizers.Tokenizer) -> None:
        self._reference = reference

    def encode_batch(self, documents: Sequence[bytes], parallel: bool) -> tuple[npt.NDArray[Any], Offsets]:
        """Encode UTF-8 documents, in several threads if `parallel` is true. Return ids and offsets.

        `Tokenizer.encode_batch` describes the two arrays.
        """
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if parallel else "false"  # `tokenizers` reads it at each call
        texts = [document.decode() for document in documents]
        try:
            encoded = self._reference.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # noqa: BLE001 - `tokenizers` raises nothing narrower
            raise InputError(
                f"a text has words that the tokenizer cannot encode ({error}); give its tokenizer.json an unknown token"
            ) from None
        ids = [np.array(one.ids, np.uint32) for one in encoded]
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        return np.concatenate([np.zeros(0, np.uint32), *ids]), offsets


def fast_encoder(definition: Definition) -> tuple[FastEncoder | None, str]:
    """Return an encoder that uses `gigatoken`, and "".

    If `gigatoken` may not give the same ids as `tokenizers`, return None and the reason.
    """
    reason = unsupported_part(definition)
    if reason:
        return None, reason
    try:
        with library_errors():
            probes = [text.encode() for text in (*_PROBES, *_probes_of(definition))]
            encoder = FastEncoder(definition)
            found = encoder.encode_batch(probes, False)
    except UnusableError as error:
        return None, str(error)
    expected = ReferenceEncoder(definition.reference).encode_batch(probes, False)
    if not all(map(np.array_equal, found, expected)):
        return None, "gigatoken gives other ids for the probe texts"
    return encoder, ""


def _probes_of(definition: Definition) -> list[str]:
    """Return probe texts: tokens of the vocabulary, and added tokens next to letters, spaces and parts of tokens."""
    reference = definition.reference
    ids = sorted(reference.get_vocab(with_added_tokens=False).values())
    texts = [reference.decode([token_id], False) for token_id in ids[:: 1 + len(ids) // _PROBED_TOKENS]]
    added = [token.content for token in reference.get_added_tokens_decoder().values()]
    probed = added[:: 1 + len(added) // _PROBED_ADDED_TOKENS]
    return [
        *texts,
        *(f" {text}a" for text in texts),
        *(f"a{each}b {each} .{each}{each} {each[:-1]}{each}{each[1:]}\n{each}\u0301 {each.upper()}" for each in probed),
        *(f"{left}{right[1:]} {left[:-1]}{right}" for left, right in pairwise(probed)),
    ]


def unsupported_part(definition: Definition) -> str:
    """Return why `gigatoken` cannot be used: the first part of the definition that it is not known to apply.

    Return "" if it is known to apply all parts.
    """
    model = definition.model
    if definition.kind != "BPE":
        return f"the model is {definition.kind}"
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            return f"the model has the setting {name}"
    normalizers = parts_of(definition.values.get("normalizer"))
    splitters = parts_of(definition.values.get("pre_tokenizer"))
    known = _like_sentencepiece if model.get("byte_fallback") else _like_byte_level
    if not known(normalizers, splitters):
        return f"the tokenizer's rules are {', '.join(part['type'] for part in (*normalizers, *splitters)) or 'none'}"
    if model.get("byte_fallback") and model.get("ignore_merges"):
        return "the model has the setting ignore_merges"
    return _unlike_added_tokens(definition, bool(normalizers)) or _unusual_vocabulary(definition)


def _like_byte_level(normalizers: Sequence[dict[str, Any]], splitters: Sequence[dict[str, Any]]) -> bool:
    """Return whether the rules split text into words by patterns, as in GPT-2 and Llama 3, and words into bytes.

    The only normalizer that is accepted is NFC.
    """
    *patterns, last = splitters or [{"type": "none"}]
    isolated = {"type": "Split", "behavior": "Isolated", "invert": False}
    return (
        all(part == {"type": "NFC"} for part in normalizers)
        and last["type"] == "ByteLevel"
        and last.get("use_regex", True) is not bool(patterns)
        and not (patterns and last.get("add_prefix_space", True))
        and all(part | isolated == part and "Regex" in part["pattern"] for part in patterns)
    )


def _like_sentencepiece(normalizers: Sequence[dict[str, Any]], splitters: Sequence[dict[str, Any]]) -> bool:
    """Return whether the rules replace spaces by U+2581 as Llama 2, Gemma or Mistral do.

    The replacement is done by normalizers, or by the pre-tokenizer `Metaspace`.
    """
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    metaspace = {"type": "Metaspace", "replacement": "\u2581"}
    if normalizers:
        return normalizers in ([prepend, replace], [replace]) and splitters in ([], [split])
    return len(splitters) == 1 and splitters[0] | metaspace == splitters[0] and "prepend_scheme" in splitters[0]


def _unlike_added_tokens(definition: Definition, is_normalized: bool) -> str:
    """Return why `gigatoken` may find other added tokens in a text than `tokenizers`.

    Return "" if both always find the same added tokens.
    """
    added = definition.reference.get_added_tokens_decoder()
    named = [(token["content"], token["id"]) for token in definition.values["added_tokens"]]
    if sorted(named) != sorted((token.content, token_id) for token_id, token in added.items()):
        return "the file lists added tokens that are repeated, empty or get other ids"
    if any(token.single_word or token.lstrip or token.rstrip for token in added.values()):
        return "the tokenizer has added tokens that depend on the text around them (single_word, lstrip, rstrip)"
    raw = {token.content for token in added.values() if not token.normalized}
    normalized = {token.content for token in added.values() if token.normalized}
    if normalized and (is_normalized or (raw and _compete(raw, normalized))):
        return "the tokenizer has added tokens that are searched in normalized text"
    return ""


def _compete(raw: set[str], normalized: set[str]) -> bool:
    """Return whether a token of `raw` and one of `normalized` may match at overlapping places of a text.

    `tokenizers` searches a text first for one set, then for the other. If there are too many pairs to compare, return
    True.
    """
    if len(raw) * len(normalized) > _MAX_PAIRS or find_overlap([*raw, *normalized]):
        return True
    return any(one in other or other in one for one in raw for other in normalized)


def _unusual_vocabulary(definition: Definition) -> str:
    """Return why `gigatoken` would read the tokens or merges of the file differently from `tokenizers`.

    Return "" if it reads them in the same way.
    """
    merges = list(merges_of(definition.model))
    if len(set(merges)) < len(merges):
        return "a merge occurs twice"
    vocab = definition.model["vocab"].keys()
    if definition.model.get("byte_fallback"):
        return "" if vocab >= _BYTE_TOKENS else "the vocabulary lacks tokens for some bytes"
    added = {token["content"] for token in definition.values["added_tokens"]}
    return "" if BYTES.issuperset("".join(vocab - added)) else "the vocabulary has tokens that are not bytes"
