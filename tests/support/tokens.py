"""Datasets of tokens with documents of chosen lengths, written as the tokenize step writes them."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from jobs.datasets.shards import EncodedDocuments, WrittenShard, locate_sources
from jobs.datasets.tokens import TokensDataset
from jobs.lake.manifest import Manifest
from jobs.lake.models import TOKENIZER
from jobs.lake.store import write_file
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import tokenizer_json

BYTES = Tokenizer(tokenizer_json([]))  # each byte is a token

Files = Mapping[str, Sequence[int]]


def write_tokens(folder: str, files: Files, shard_documents: int = 1 << 30, repeats: int = 1) -> TokensDataset:
    """Write documents of random letters, given by their lengths in bytes for each file; return the dataset.

    With `repeats`, each text of a file occurs as often. A document has one token more, the end-of-text token.
    """
    lengths = np.array([length for sizes in files.values() for length in sizes], np.int64)
    source = np.repeat(np.arange(len(files), dtype=np.uint32), [len(sizes) for sizes in files.values()])
    offset = np.concatenate([np.cumsum(sizes) - np.array(sizes) for sizes in files.values() if len(sizes)])
    names = list(files)
    hashes = np.concatenate([_hashes(name, len(sizes), repeats) for name, sizes in files.items()])
    shards: list[WrittenShard] = []
    for first in range(0, len(lengths), shard_documents):
        here = slice(first, first + shard_documents)
        ends = np.cumsum(lengths[here] + 1)
        ids = np.random.default_rng(first).integers(97, 123, ends[-1]).astype(BYTES.dtype)
        ids[ends - 1] = BYTES.end_of_text
        named = [names[i] for i in np.unique(source[here])]
        within = np.searchsorted(np.unique(source[here]), source[here]).astype(np.uint32)
        documents = EncodedDocuments(
            ids, ends, within, offset[here].astype(np.uint64), lengths[here].astype(np.uint32), hashes[here], named
        )
        shards.append(documents.write(folder, f"shards/{len(shards):05}-000"))
    entries, sizes = locate_sources(shards)
    entry = write_file(folder, TOKENIZER, BYTES.json)
    counts = {"num_documents": len(lengths), "num_tokens": int((lengths + 1).sum()), "vocab_size": BYTES.vocab_size}
    described = [{"name": name, "text_bytes": sizes[name]} for name in names]
    return TokensDataset(folder, Manifest("tokens", "t", (entry, *entries), counts, {"files": described}))


def _hashes(name: str, count: int, repeats: int) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, 2**64, count, np.uint64)[
        np.arange(count) // repeats
    ]
