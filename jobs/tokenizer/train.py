"""Trains tokenizers. The result is the content of a Hugging Face ``tokenizer.json``.

Byte-level BPE: `gigatoken` learns the merges (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909) inside the words
of GPT-2's pattern. Ids 0 to 255 are the bytes, id 256 is the end-of-text token, then comes one id for each merge.

Vocabularies of words or characters: all units (words or characters) are counted exactly. Id 0 is the end-of-text token
and id 1 the unknown token (``<unk>``); then come the units, the most frequent first. A word is what Hugging Face's
`Whitespace` splits off: a run of letters, digits and underscores, or of other visible characters. Whitespace between
words is lost; a vocabulary of characters keeps it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import gigatoken
from tokenizers import normalizers, pre_tokenizers

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.reading import read_documents, sample_documents
from jobs.engine.base import Engine
from jobs.tokenizer.definition import END_OF_TEXT
from jobs.tokenizer.long_words import MAX_WORD_BYTES, WordCutter
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

UNKNOWN = "<unk>"


def train_tokenizer(
    splits: Sequence[Sequence[ByteRange]], text_bytes: int, settings: TokenizeConfig, engine: Engine
) -> Tokenizer:
    """Train a tokenizer on the input splits of a corpus. `tokenize.kind` decides its kind: BPE, words or characters.

    BPE is trained on a sample of about `tokenize.train_bytes` of the corpus's `text_bytes` bytes. Vocabularies of words
    or characters are counted in the whole corpus.
    """
    if settings.kind != "bpe":
        counts = engine.map(partial(count_units, settings=settings), splits, f"count each {settings.kind}")
        return Tokenizer(vocabulary_json(counts, settings))
    sample = partial(sample_documents, share=settings.train_bytes / text_bytes, settings=settings)
    texts = (text for task in engine.map(sample, splits, "sample the corpus") for text in task)
    return Tokenizer(train_bpe(texts, settings.vocab_size))


def train_bpe(documents: Iterable[bytes], vocab_size: int) -> bytes:
    """Train BPE with at most `vocab_size` tokens, and return its ``tokenizer.json``.

    The vocabulary is smaller if the text has too few distinct pairs of tokens to merge. The text ``<|endoftext|>`` in a
    document takes no part in merges.
    """
    cutter = WordCutter(END_OF_TEXT.encode())
    text = END_OF_TEXT.encode().join(map(cutter.cut, documents))
    if cutter.num_cut:
        log.warning("words of more than %d bytes were divided before BPE was trained (number: %d, longest: %d bytes)",
                    MAX_WORD_BYTES, cutter.num_cut, cutter.longest)  # fmt: skip
    with _silence():
        _, merges = gigatoken.train_bpe(text, vocab_size, [END_OF_TEXT])
    return tokenizer_json(merges)


def tokenizer_json(merges: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the ``tokenizer.json`` of byte-level BPE with these merges. The merges must be in order of priority."""
    characters = _byte_characters()
    vocab = {token: token_id for token_id, token in enumerate([*characters, END_OF_TEXT])}
    kept = []
    for pair in merges:
        left, right = ("".join(characters[byte] for byte in part) for part in pair)
        if left + right not in vocab:  # a small text may give the same token, or even the same pair, twice
            vocab[left + right] = len(vocab)
            kept.append([left, right])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    rules = {"normalizer": None, "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level}
    return _to_json(rules, {"type": "BPE", "vocab": vocab, "merges": kept})


def _to_json(rules: dict[str, Any], model: dict[str, Any]) -> bytes:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    end_of_text = {"id": model["vocab"][END_OF_TEXT], "content": END_OF_TEXT, **flags, "special": True}
    values = {"version": "1.0", "added_tokens": [end_of_text], **rules, "model": model}
    return json.dumps(values, ensure_ascii=False).encode()


def _byte_characters() -> list[str]:
    """Return the visible character that stands for each byte in a ``tokenizer.json``, as GPT-2 defines them.

    A byte that is a printable character in Latin-1 gets this character. Other bytes get the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 0x100 + hidden.index(byte)) for byte in range(256)]


@contextmanager
def _silence() -> Iterator[None]:
    """Discard the output of native code, which goes directly to the standard output and error of the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    discard = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(discard, descriptor)
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(discard)


def count_units(parts: Sequence[ByteRange], *, settings: TokenizeConfig) -> Counter[str]:
    """Count how often each unit (word or character) occurs in an input split of a corpus."""
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
    """Add up the counts of all input splits, and return the ``tokenizer.json`` of the most frequent units.

    It has at most `tokenize.vocab_size` tokens, including the end-of-text token and the unknown token.
    """
    total = Counter[str]()
    for part in counts:
        total.update(part)
    frequent = [(unit, count) for unit, count in total.items() if count >= settings.min_frequency]
    frequent.sort(key=lambda pair: (-pair[1], pair[0]))
    short = [unit for unit, _ in frequent if len(unit.encode()) <= MAX_WORD_BYTES]
    if len(short) < len(frequent):
        log.warning("words of more than %d bytes become %s (number: %d, longest: %d bytes)", MAX_WORD_BYTES, UNKNOWN,
                    len(frequent) - len(short), max(len(unit.encode()) for unit, _ in frequent))  # fmt: skip
    units = [unit for unit in short if unit not in (END_OF_TEXT, UNKNOWN)]
    vocab = {unit: i for i, unit in enumerate([END_OF_TEXT, UNKNOWN, *units][: settings.vocab_size])}
    every = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    is_word = settings.kind == "word"
    rules = {
        "normalizer": {"type": "Lowercase"} if settings.lowercase else None,
        "pre_tokenizer": {"type": "Whitespace"} if is_word else every,
        # No word starts with this prefix, so the decoder puts a space before each word; punctuation gets none.
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True} if is_word else {"type": "Fuse"},
        "post_processor": None,
    }
    return _to_json(rules, {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN})


@lru_cache(maxsize=4)
def _splitter(kind: str, lowercase: bool) -> Callable[[str], list[str]]:
    """Return a function that splits text into words or characters as the trained tokenizer will do."""
    lower, words = normalizers.Lowercase(), pre_tokenizers.Whitespace()

    def split(text: str) -> list[str]:
        text = lower.normalize_str(text) if lowercase else text
        return [word for word, _ in words.pre_tokenize_str(text)] if kind == "word" else list(text)

    return split
