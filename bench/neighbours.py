"""``make bench-embed``: neighbours of ten words, and our word2vec beside gensim's on the same tokens and settings.

Quality is told by words that have several tokens: how far up a word's capitalised forms stand among its neighbours
(mean reciprocal rank), though nothing in the training says that they are one word.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import Any

import numpy as np

from bench.processes import measured
from bench.table import show
from bench.text import WORK, folder_of, original
from jobs.cli.neighbours import neighbours_of
from jobs.config import resolve
from jobs.datasets.shards import TokenShard
from jobs.datasets.tokens import read_tokenizer
from jobs.embeddings.files import Embeddings, read_embeddings, token_names
from jobs.embeddings.neighbours import Neighbours, find_token
from jobs.engine.base import Engine
from jobs.engine.inline import InlineEngine
from jobs.lake.layout import Lake, Run
from jobs.lake.store import read_json, read_manifest, write_bytes
from jobs.lake.uri import to_uri
from jobs.pipeline import run_step

WORDS = ("king", "queen", "love", "sword", "father", "night", "blood", "sea", "speak", "good")
SETTINGS = {"tokenize.vocab_size": 8192, "embed.size": 100, "log_level": "WARN"}


def main() -> None:
    """Measure, print, and check that what was learned makes sense."""
    run, seconds = _ours(InlineEngine())
    print("\nNearest tokens of ten words, with their cosines")
    for line in list(neighbours_of(run, WORDS, 6))[1:]:
        print(f"  {line}")
    lake, datasets = Lake(run.lake_uri), read_json(run.datasets)
    tokenizer = read_tokenizer(lake, datasets["tokens"])
    names = token_names(tokenizer.json)
    ours = read_embeddings(lake.embeddings(datasets["embeddings"]))
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
    show(f"word2vec on {cores} cores", ("", "s", "rank of other forms", "king-queen", "king-the"), rows)
    print(f"  ours / gensim: {gensim_seconds / seconds:.2f} times as fast")


def _ours(engine: Engine) -> tuple[Run, float]:
    """Tokens and embeddings of the text; the seconds of the second step."""
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
    """What gensim learns from the same documents with the same settings, for the tokens that we have."""
    manifest = read_manifest(lake.tokens(tokens))
    assert manifest
    shards = [TokenShard.open(lake.tokens(tokens), entry).ids for entry in manifest.entries("shards/")]
    ids, settings = np.concatenate(shards), resolve("none", "demo", SETTINGS).embed
    files = WORK / "ids.npy", WORK / "gensim.npy"
    np.save(files[0], ids)
    given = {**settings.model_dump(), "end_of_text": end_of_text, "cores": os.cpu_count()}
    found, _ = measured([".venv-bench/bin/python", "bench/gensim_peer.py", *map(str, files), json.dumps(given)])
    assert ours.ids is not None
    return Embeddings(ours.tokens, ours.ids, np.load(files[1])[ours.ids]), float(found["seconds"])


def _rank(embeddings: Embeddings, min_letters: int = 4) -> float:
    """The mean reciprocal rank of a word's capitalised forms among the word's neighbours."""
    rows = {token: row for row, token in enumerate(embeddings.tokens)}
    pairs = [
        (row, rows[form])
        for token, row in rows.items()
        if token[0] == "Ġ" and token[1:].isalpha() and token[1:].islower() and len(token) > min_letters
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
