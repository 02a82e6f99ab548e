"""Training of a byte-level BPE vocabulary, and writing it as a Hugging Face ``tokenizer.json``.

`gigatoken` learns the merges (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909) over the words of GPT-2's
pattern; ids 0 to 255 are the bytes, 256 is the end-of-text token, then one id for each merge.
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
        documents: UTF-8 texts; ``<|endoftext|>`` in them divides and is not learned from.
        vocab_size: Most tokens to have; a small text may not have pairs for so many.
    """
    text = END_OF_TEXT.encode().join(documents)
    with _silence():
        _, merges = gigatoken.train_bpe(text, vocab_size, [END_OF_TEXT])
    return tokenizer_json(merges)


def tokenizer_json(merges: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The ``tokenizer.json`` of byte-level BPE with these merges, in their order of priority."""
    letters = _letters()
    vocab = {token: token_id for token_id, token in enumerate([*letters, END_OF_TEXT])}
    kept = []
    for pair in merges:
        left, right = ("".join(letters[byte] for byte in part) for part in pair)
        if left + right not in vocab:  # a small text gives the same token, even the same pair, more than once
            vocab[left + right] = len(vocab)
            kept.append([left, right])
    values = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": _END_OF_TEXT_ID,
                "content": END_OF_TEXT,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": kept},
    }
    return json.dumps(values, ensure_ascii=False).encode()


def _letters() -> list[str]:
    """The visible letter that stands for each byte in a ``tokenizer.json``, as GPT-2 chose them.

    Printable bytes of Latin-1 stand for themselves, the others for the letters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 0x100 + hidden.index(byte)) for byte in range(256)]


@contextmanager
def _silence() -> Iterator[None]:
    """Send what native code prints to nowhere: it writes to the process's own standard output and error."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)
