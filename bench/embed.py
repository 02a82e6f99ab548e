"""``make bench-embed``: our word2vec against gensim's, with the same tokens and settings, and neighbours of ten words.

The measure of quality is the rank of a word's capitalized form among the word's neighbours (mean reciprocal rank). The
two forms are different tokens, so nothing in the training tells the model that they are the same word.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import Any

import numpy as np

from bench.measure import run_measured
from bench.table import show
from bench.text import WORK, folder_of, original
from jobs.cli.run import neighbours_of
from jobs.config import resolve
from jobs.datasets.shards import TokenShard
from jobs.datasets.tokens import TokensDataset
from jobs.embeddings.files import Embeddings, read_embeddings, token_names
from jobs.embeddings.uses import Neighbours, find_token
from jobs.engine.base import Engine
from jobs.engine.inline import InlineEngine
from jobs.lake.layout import Lake, Run
from jobs.lake.store import read_json, read_manifest, write_bytes
from jobs.lake.uri import to_uri
from jobs.pipeline import run_step

WORDS = ("king", "queen", "love", "sword", "father", "night", "blood", "sea", "speak", "good")
SETTINGS = {"tokenize.vocab_size": 8192, "embed.size": 100, "log_level": "WARN"}


def main() -> None:
    """Measure and print the results. Fail if 'king' is not nearer to 'queen' than to 'the'."""
    run, seconds = _ours(InlineEngine())
    print("\nNearest tokens of ten words, with cosine similarities")
    for line in list(neighbours_of(run, WORDS, 6))[1:]:
        print(f"  {line}")
    lake, datasets = Lake(run.lake_uri), read_json(run.datasets)
    tokenizer = TokensDataset.of_run(run).read_tokenizer()
    names = token_names(tokenizer.json)
    ours = read_embeddings(lake.dataset("embeddings", datasets["embeddings"]))
    theirs, gensim_seconds = _gensim(lake, datasets["tokens"], tokenizer.end_of_text, ours)
    rows = []
    for name, embeddings, took in (("ours, inline", ours, seconds), ("gensim", theirs, gensim_seconds)):
        known = Neighbours(embeddings)
        king, queen, the = (find_token(word, tokenizer.encode, names, known) for word in ("king", "queen", "the"))
        near, far = known.cosine(king, queen), known.cosine(king, the)
        rows.append((name, f"{took:.1f}", f"{_rank(embeddings):.3f}", f"{near:.2f}", f"{far:.2f}"))
        if name != "gensim" and near <= far:
            sys.exit("king is not nearer to queen than to the")
    cores = os.cpu_count() or 1
    show(f"word2vec on {cores} cores", ("", "s", "mean reciprocal rank", "king-queen", "king-the"), rows)
    print(f"  speed, ours / gensim: {gensim_seconds / seconds:.2f}")


def _ours(engine: Engine) -> tuple[Run, float]:
    """Make tokens and embeddings of the text. Return the run and the seconds of the embed step."""
    path = WORK / "embed-lake"
    shutil.rmtree(path, ignore_errors=True)
    text = folder_of(len(original()))
    config = resolve(to_uri(str(text)), "demo", SETTINGS)
    run = Lake(to_uri(str(path))).run("bench")
    write_bytes(run.config, config.to_json().encode())
    run_step("tokenize", run, config, engine)
    started = time.perf_counter()
    run_step("embed", run, config, engine)
    return run, time.perf_counter() - started


def _gensim(lake: Lake, tokens: str, end_of_text: int, ours: Embeddings) -> tuple[Embeddings, float]:
    """Train gensim on the same documents with the same settings. Return its embeddings and the seconds."""
    manifest = read_manifest(lake.dataset("tokens", tokens))
    assert manifest
    shards = [TokenShard.open(lake.dataset("tokens", tokens), entry).ids for entry in manifest.entries("shards/")]
    ids, settings = np.concatenate(shards), resolve("none", "demo", SETTINGS).embed
    files = WORK / "ids.npy", WORK / "gensim.npy"
    np.save(files[0], ids)
    given = {**settings.model_dump(), "end_of_text": end_of_text, "cores": os.cpu_count()}
    found, _ = run_measured([".venv-bench/bin/python", "bench/gensim_peer.py", *map(str, files), json.dumps(given)])
    assert ours.ids is not None
    return Embeddings(ours.tokens, ours.ids, np.load(files[1])[ours.ids]), float(found["seconds"])


def _rank(embeddings: Embeddings, min_length: int = 4) -> float:
    """Return the mean reciprocal rank of a word's capitalized forms among the word's neighbours."""
    rows = {token: row for row, token in enumerate(embeddings.tokens)}
    pairs = [
        (row, rows[form])
        for token, row in rows.items()
        if token[0] == "Ġ" and token[1:].isalpha() and token[1:].islower() and len(token) > min_length
        for form in (f"Ġ{token[1:].capitalize()}", token[1:].capitalize())
        if form in rows
    ]
    words, forms = np.array(pairs).T
    directions = embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True).clip(1e-9)
    cosines = directions[words] @ directions.T
    cosines[np.arange(len(words)), words] = -1
    better: Any = cosines > cosines[np.arange(len(words)), forms][:, None]
    return float((1 / (1 + better.sum(axis=1))).mean())


if __name__ == "__main__":
    main()
