"""Corpora in S3: objects with odd keys, on a moto server of the process that runs the case."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import boto3

from jobs.config import resolve
from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.check import check_corpus
from jobs.corpus.reading import read_documents
from jobs.engine.inline import InlineEngine
from jobs.lake import store
from jobs.sources.listing import list_corpus
from jobs.sources.names import to_corpus
from nightjar.tasks import preflight
from tests.fuzz.damage import COMPRESS, damage, pack, random_text
from tests.fuzz.registry import Case, family

_KEYS = (
    *("a.txt", "x//b.txt", "/c.txt", "d/", "./e.txt", "f/../g.txt", "夜.txt", "a b.txt", "a+b%20.txt", "[v1]/h.txt"),
    *("?.txt", "*.txt", "_i.txt", "x/.j.txt", "lake/runs/k.txt", "l.txt.gz", "M.TXT.XZ", "part-r-00000", "n.csv"),
    *("o#1.txt", "p?q=r.txt", "'s'.txt", "t&u.txt", "long" * 60 + ".txt", "x/y/z/v.txt.zst", "w.txt.bz2"),
)
_PLACES = (
    "",
    "/",
    "/*",
    "/**",
    "/**/*.txt",
    "/x",
    "/x//*.txt",
    "/x//b.txt",
    "/[v1]/*",
    "/[z-a]",
    "/none",
    "/?.txt",
    "/d",
)


@cache
def _client() -> Any:
    """Start a moto server once in this process, and return a client of it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.get_host_and_port()[1]}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    store.environment_client.cache_clear()
    return boto3.client("s3")


@family("s3")
def _s3(rng: Random, folder: Path) -> Case:
    """The listing, the preflight's check, the step's check and the reading, all from S3."""
    objects, shown = {}, []
    for key in rng.sample(_KEYS, rng.randint(0, 6)):
        suffix = key.rpartition(".")[2].lower()
        data = random_text(rng).encode()
        data = pack(rng, data, suffix) if suffix in COMPRESS else data
        objects[key], how = damage(rng, data) if rng.random() < 0.2 else (data, "nothing")
        shown.append(f"{key} ({how})")
    bucket = f"fuzz-{rng.randrange(10**9)}"
    root = f"s3://{bucket}/{rng.choice(('texts', 'my texts', 'a//b'))}"
    corpus = "\n".join(f"{root}{place}" for place in rng.sample(_PLACES, rng.choice((1, 1, 2))))

    def run() -> None:
        _client().create_bucket(Bucket=bucket)
        for key, data in objects.items():
            store.write_bytes(f"{root}/{key}", data)
        config = resolve(to_corpus(corpus), "tiny", {})
        listing = list_corpus(config.corpus, lake_uri=f"{root}/lake")
        names = [source.name for source in listing.sources]
        assert names == sorted(set(names)), "a name twice, or not in order"
        preflight.check_contents(listing.sources, store.ENVIRONMENT, config.tokenize)
        for checked in check_corpus(listing, config.tokenize, InlineEngine()):
            list(read_documents(ByteRange.whole(checked.source), config.tokenize))

    return Case(f"{corpus!r} of {', '.join(shown)}", run)
