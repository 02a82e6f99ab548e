"""Vocabularies of words or characters: counted exactly, split by split, and written as ``tokenizer.json``.

Id 0 is the end-of-text token and id 1 the unknown token (``<unk>``); then come the units, the most frequent first. A
word is what Hugging Face's `Whitespace` splits off: a run of letters, digits and underscores, or of other visible
characters. Words lose the whitespace between them; characters keep it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from tokenizers import normalizers, pre_tokenizers

from jobs.config import TokenizeConfig
from jobs.corpus.reading import read_documents
from jobs.corpus.splits import ByteRange
from jobs.tokenizer.tokenizer import END_OF_TEXT

UNKNOWN = "<unk>"


def count_units(parts: Sequence[ByteRange], *, settings: TokenizeConfig) -> Counter[str]:
    """Count how often each word or character occurs in a split of a corpus.

    Raises:
        InputError: if a file cannot be read.
    """
    # No word contains whitespace, so each distinct chunk between whitespace is split into words only once.
    chunks, characters = Counter[bytes](), Counter[str]()
    for document in (text for part in parts for batch in read_documents(part, settings) for text in batch.texts):
        if settings.kind == "word":
            chunks.update(document.replace(END_OF_TEXT.encode(), b" ").split())
        else:
            characters.update(document.decode().replace(END_OF_TEXT, ""))
    units = _splitter(settings.kind, settings.lowercase)
    counts = Counter[str]()
    for chunk, count in chain(((chunk.decode(), count) for chunk, count in chunks.items()), characters.items()):
        for unit in units(chunk):
            counts[unit] += count
    return counts


def vocabulary_json(counts: Iterable[Counter[str]], settings: TokenizeConfig) -> bytes:
    """Return the ``tokenizer.json`` of the counted units that are frequent enough.

    If there are more than `tokenize.vocab_size`, the most frequent ones are taken.
    """
    total = Counter[str]()
    for part in counts:
        total.update(part)
    frequent = [(unit, count) for unit, count in total.items() if count >= settings.min_frequency]
    frequent.sort(key=lambda pair: (-pair[1], pair[0]))
    units = [unit for unit, _ in frequent if unit not in (END_OF_TEXT, UNKNOWN)]
    vocab = {unit: i for i, unit in enumerate([END_OF_TEXT, UNKNOWN, *units][: settings.vocab_size])}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    values = {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": END_OF_TEXT, **flags, "special": True}],
        **_splitting_rules(settings.kind, settings.lowercase),
        "post_processor": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN},
    }
    return json.dumps(values, ensure_ascii=False).encode()


def _splitting_rules(kind: str, lowercase: bool) -> dict[str, Any]:
    """Return the parts of a ``tokenizer.json`` that split text into units and join units to text."""
    every = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    return {
        "normalizer": {"type": "Lowercase"} if lowercase else None,
        "pre_tokenizer": {"type": "Whitespace"} if kind == "word" else every,
        # No word starts with this prefix, so the decoder puts a space before each word; punctuation gets none.
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True} if kind == "word" else {"type": "Fuse"},
    }


@lru_cache(maxsize=4)
def _splitter(kind: str, lowercase: bool) -> Callable[[str], list[str]]:
    """Return a function that splits text into units, as the tokenizer will."""
    lower, words = normalizers.Lowercase(), pre_tokenizers.Whitespace()

    def split(text: str) -> list[str]:
        text = lower.normalize_str(text) if lowercase else text
        return [word for word, _ in words.pre_tokenize_str(text)] if kind == "word" else list(text)

    return split
