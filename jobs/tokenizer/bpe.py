"""Trains a byte-level BPE vocabulary and writes it as a Hugging Face ``tokenizer.json``.

`gigatoken` learns the merges (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909) inside the words of GPT-2's
pattern. Ids 0 to 255 are the bytes, id 256 is the end-of-text token, then comes one id for each merge.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import gigatoken

from jobs.tokenizer.tokenizer import END_OF_TEXT

_END_OF_TEXT_ID = 256


def train_bpe(documents: Iterable[bytes], vocab_size: int) -> bytes:
    """Train a vocabulary and return the content of its ``tokenizer.json``.

    Args:
        documents: UTF-8 texts. ``<|endoftext|>`` in them separates texts; no merge contains it.
        vocab_size: The maximum number of tokens; a small text may not have enough distinct pairs for it.
    """
    text = END_OF_TEXT.encode().join(documents)
    with _silence():
        _, merges = gigatoken.train_bpe(text, vocab_size, [END_OF_TEXT])
    return tokenizer_json(merges)


def tokenizer_json(merges: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the ``tokenizer.json`` of byte-level BPE with these merges, in their order of priority."""
    characters = _byte_characters()
    vocab = {token: token_id for token_id, token in enumerate([*characters, END_OF_TEXT])}
    kept = []
    for pair in merges:
        left, right = ("".join(characters[byte] for byte in part) for part in pair)
        if left + right not in vocab:  # on a small text the same token, or even the same pair, comes more than once
            vocab[left + right] = len(vocab)
            kept.append([left, right])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    values = {
        "version": "1.0",
        "added_tokens": [{"id": _END_OF_TEXT_ID, "content": END_OF_TEXT, **flags, "special": True}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": kept},
    }
    return json.dumps(values, ensure_ascii=False).encode()


def _byte_characters() -> list[str]:
    """Return the visible character that stands for each byte in a ``tokenizer.json``, as GPT-2 defines them.

    Printable bytes of Latin-1 stand for themselves, the others for the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 0x100 + hidden.index(byte)) for byte in range(256)]


@contextmanager
def _silence() -> Iterator[None]:
    """Discard what native code prints: it writes directly to the standard output and error of the process."""
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
