"""Train word2vec with gensim in .venv-bench: ``gensim_peer.py IDS.npy VECTORS.npy SETTINGS``. Prints the seconds."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from gensim.models import Word2Vec

ids_path, vectors_path, text = sys.argv[1:]
settings = json.loads(text)
ids = np.load(ids_path)
ends = np.flatnonzero(ids == settings["end_of_text"])
sentences = [list(map(str, document[:-1])) for document in np.split(ids, ends + 1) if len(document)]
started = time.perf_counter()
model = Word2Vec(
    sentences,
    vector_size=settings["size"],
    window=settings["window"],
    negative=settings["negative"],
    epochs=settings["epochs"],
    min_count=settings["min_count"],
    sample=settings["subsample"],
    seed=settings["seed"],
    workers=settings["cores"],
    sg=1,
    hs=0,
)
seconds = time.perf_counter() - started
vectors = np.zeros((int(ids.max()) + 1, settings["size"]), np.float32)
for token, row in model.wv.key_to_index.items():
    vectors[int(token)] = model.wv.vectors[row]
np.save(vectors_path, vectors)
sys.stdout.write(json.dumps({"seconds": seconds}) + "\n")
