"""Reads a ``tokenizer.json`` file, and refuses a file that cannot be used.

Besides the tokenizer, the file may hold call-time settings: truncation, padding, tokens added at the start or the end
of each text, random dropout of merges. They would change the ids of a corpus, so they are removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from jobs.errors import shorten

END_OF_TEXT = "<|endoftext|>"
BYTES = frozenset(pre_tokenizers.ByteLevel.alphabet())
"""The characters that stand for bytes in a byte-level vocabulary."""
_RARE = "漢жক😀"  # few vocabularies have all of these
_MAX_IDS = 1 << 24  # `tokenizers` and `gigatoken` reserve memory for every id up to the largest
_NO_TOKENIZER = "not a tokenizer.json of Hugging Face tokenizers; give another file"


class UnusableError(ValueError):
    """A ``tokenizer.json`` cannot be used. The message says why."""


@dataclass(frozen=True)
class Definition:
    """The content of a ``tokenizer.json``, and the tokenizer that Hugging Face `tokenizers` makes of this content."""

    json: bytes
    """The content without call-time settings. It is the unchanged file if the file has no such settings."""
    values: dict[str, Any]
    """The parsed content."""
    reference: tokenizers.Tokenizer
    end_of_text: int
    """The id of the end-of-text token."""
    removed: tuple[str, ...]
    """The names of the call-time settings that were removed from the content."""

    @classmethod
    def parse(cls, json_bytes: bytes) -> Definition:
        """Read the content of a file. Raise an UnusableError if it is not a tokenizer, or has no end-of-text token."""
        values = _checked(json_bytes)
        removed = _remove_call_settings(values)
        try:
            with library_errors():
                content = json.dumps(values, ensure_ascii=False).encode() if removed else json_bytes
                reference = tokenizers.Tokenizer.from_str(content.decode())
                end_of_text = reference.token_to_id(END_OF_TEXT)
                assert end_of_text is not None, "an added token has an id"
                reference.decode([end_of_text], skip_special_tokens=False)  # fails if the decoder cannot work
        except UnusableError as error:
            raise UnusableError(f"this tokenizer cannot be loaded ({error}); give another tokenizer.json") from None
        return cls(content, values, reference, end_of_text, tuple(removed))

    @property
    def model(self) -> dict[str, Any]:
        """The object ``model`` of ``tokenizer.json``."""
        model: dict[str, Any] = self.values["model"]
        return model

    @property
    def kind(self) -> str:
        """The type of the model. It is BPE if the file has no type, as in early versions of the format."""
        return str(self.model.get("type", "BPE"))

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown token. None if there is none, or if the end-of-text token is also the unknown token."""
        if self.kind == "Unigram":
            found = self.model.get("unk_id")
        else:
            unknown = self.model.get("unk_token")
            found = self.reference.token_to_id(unknown) if unknown else None
        return None if found == self.end_of_text else found

    def uncovered(self) -> str:
        """Return what happens to characters that the tokenizer cannot encode. Return "" if it can encode all."""
        try:
            covered = all(self.reference.encode(letter, add_special_tokens=False).ids for letter in _RARE)
        except Exception:  # noqa: BLE001 - `tokenizers` raises nothing narrower
            return "it has no unknown token, so a text with anything outside its vocabulary is refused"
        if any(part["type"] == "ByteLevel" for part in parts_of(self.values.get("pre_tokenizer"))):
            covered = covered and self.model["vocab"].keys() >= BYTES
        return "" if covered else "it has no unknown token, so characters outside its vocabulary are left out"


def parts_of(section: Any) -> list[dict[str, Any]]:
    """Return the parts of a normalizer, pre-tokenizer or post-processor.

    If the section is a sequence, these are the parts of the sequence. Otherwise the section itself is the only part.
    Each returned part has a ``type``. It is ``unnamed`` if the file gives the part no type; `tokenizers` recognizes
    such a part by its other values.
    """
    if section is None:
        return []
    if not isinstance(section, dict):
        return [{"type": "unnamed"}]
    listed = [section.get(name) for name in ("normalizers", "pretokenizers", "processors")]
    inner = next((each for each in listed if isinstance(each, list)), None)
    if section.get("type") != "Sequence" or inner is None:
        return [{**section, "type": str(section.get("type", "unnamed"))}]
    return [part for each in inner for part in parts_of(each)]


def _checked(json_bytes: bytes) -> dict[str, Any]:
    """Return the parsed content. Raise an UnusableError for faults that `tokenizers` reports badly or not at all."""
    try:
        values: dict[str, Any] = json.loads(json_bytes)
        model, added = values["model"], values.get("added_tokens") or []
        names = [token["content"] for token in added]
        vocab = model.get("vocab")
        ids = list(map(int, vocab.values() if isinstance(vocab, dict) else ()))  # the vocabulary of Unigram is a list
        largest = max([*ids, *(int(token["id"]) for token in added)], default=0)
        missing = _merge_outside(model) if model.get("type", "BPE") == "BPE" else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UnusableError(_NO_TOKENIZER) from None
    if END_OF_TEXT not in names:
        raise UnusableError(
            f"has no special token {END_OF_TEXT}, which ends each document; add it or give another file"
        )
    if largest >= _MAX_IDS:
        raise UnusableError(
            f"the largest token id is {shorten(largest)}, but must be below {_MAX_IDS}; number the tokens from 0"
        )
    if len(set(ids)) < len(ids):
        raise UnusableError(f"{len(ids)} tokens share {len(set(ids))} ids; give each token an id of its own")
    if missing:
        left, right = (shorten(repr(token)) for token in missing)
        raise UnusableError(f"the merge of {left} and {right} gives a token outside the vocabulary; give another file")
    return values


def _merge_outside(model: dict[str, Any]) -> tuple[str, str] | None:
    """Return the first merge whose result is not in the vocabulary, or None. `tokenizers` may panic at such a merge."""
    vocab, prefix = model.get("vocab") or {}, model.get("continuing_subword_prefix") or ""
    for left, right in merges_of(model):
        if not right.startswith(prefix) or left + right.removeprefix(prefix) not in vocab:
            return left, right
    return None


def merges_of(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the two tokens of each merge of a BPE model. Early versions of the format store a merge as one string."""
    for merge in model.get("merges") or ():
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        yield left, right


def find_overlap(texts: Sequence[str]) -> tuple[str, str] | None:
    """Return two texts such that the end of the first is the beginning of the second. Return None if there are none.

    Pairs of texts that repeat one character, such as "aa" and "aaa", do not count: for these, every search finds the
    longest text that matches.
    """
    beginnings: dict[str, list[str]] = {}
    for text in texts:
        for size in range(1, len(text)):
            beginnings.setdefault(text[:size], []).append(text)
    for text in texts:
        for start in range(1, len(text)):
            for other in beginnings.get(text[start:], ()):
                if other != text and len({*text, *other}) > 1:
                    return text, other
    return None


def _remove_call_settings(values: dict[str, Any]) -> list[str]:
    """Remove truncation, padding, the post-processor and dropout. Return the names of the settings removed."""
    removed = [name for name in ("truncation", "padding") if values.get(name) is not None]
    # A post-processor of type ByteLevel stays, since it changes only offsets.
    if any(part["type"] != "ByteLevel" for part in parts_of(values.get("post_processor"))):
        removed.append("post_processor")
    values.update(dict.fromkeys(removed))
    if values["model"].get("dropout"):
        values["model"]["dropout"] = None
        removed.append("dropout")
    return removed


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn any exception from a library, including a panic of its native code, into an UnusableError."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnusableError(shorten(reason)) from None  # the reason may quote the whole file
