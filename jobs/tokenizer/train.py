"""Trains the tokenizer that the settings ask for on the splits of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from jobs.config import TokenizeConfig
from jobs.corpus.sample import sample_documents
from jobs.corpus.splits import ByteRange
from jobs.engine.base import Engine
from jobs.tokenizer.bpe import train_bpe
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.vocabulary import count_units, vocabulary_json


def train_tokenizer(
    splits: Sequence[Sequence[ByteRange]], text_bytes: int, settings: TokenizeConfig, engine: Engine
) -> Tokenizer:
    """Train a tokenizer: BPE on a sample of the corpus, words and characters on all of it.

    Args:
        splits: The splits of the corpus.
        text_bytes: The bytes of text in all of them.
        settings: The kind of tokens, and the sizes of vocabulary and sample.
        engine: Reads the splits.

    Raises:
        InputError: if a file cannot be read.
    """
    if settings.kind != "bpe":
        counts = engine.map(partial(count_units, settings=settings), splits, f"count each {settings.kind}")
        return Tokenizer.from_json(vocabulary_json(counts, settings))
    sample = partial(sample_documents, share=settings.train_bytes / text_bytes, settings=settings)
    texts = (text for task in engine.map(sample, splits, "sample the corpus") for text in task)
    return Tokenizer.from_json(train_bpe(texts, settings.vocab_size))
