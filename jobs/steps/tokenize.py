"""Step 1: from text to tokens. Reads the corpus and publishes ``<lake>/datasets/tokens/<fingerprint>/``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from itertools import tee
from typing import Any

from jobs.config import Config
from jobs.corpus.check import read_corpus
from jobs.datasets.publish import find_or_make
from jobs.datasets.reuse import earlier_tokens, find_reusable, find_tokenizer
from jobs.datasets.tokenization import describe_inputs, make_tokens
from jobs.engine.base import Engine
from jobs.errors import counted
from jobs.fingerprint import code_version, fingerprint
from jobs.lake.layout import Lake, Run
from jobs.sources.earlier import inherited_pipeline

log = logging.getLogger(__name__)

_NOTICES = {
    "num_markup_files": "files begin as HTML or XML, and their tags are part of the text",
    "num_nul_bytes": "bytes of the text are NUL, which text files do not have; a file may be damaged or binary",
    "num_ignored_bytes": "bytes after the end of compressed data were ignored",
}


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Make the tokens dataset of a run, or use an existing one; return its statistics.

    The whole corpus is checked before anything is written.
    """
    settings, lake = config.text_settings, Lake(run.lake_uri)
    earlier, again = tee(earlier_tokens(lake, config.corpus, run) if settings.tokenizer != "train" else ())
    tokenizer, origin = find_tokenizer(settings.tokenizer, inherited_pipeline(run, config), earlier)
    for remark in tokenizer.remarks() if tokenizer else ():  # earlier checks of the tokenizer do not log them
        log.warning("tokenize.tokenizer: %s: %s", origin, remark)
    listing, corpus = read_corpus(config.corpus, lake.uri, settings, engine, progress)
    inputs = describe_inputs(corpus, settings, tokenizer, code_version(__name__))
    reusable = find_reusable(again, inputs, settings)
    make = partial(
        make_tokens,
        corpus=corpus,
        inputs=inputs,
        given=tokenizer,
        reusable=reusable,
        settings=settings,
        engine=engine,
    )
    stats = find_or_make(run, "tokens", reusable.complete or fingerprint(kind="tokens", **inputs), make)
    for name, meaning in _NOTICES.items():
        if stats.get(name):  # datasets of earlier versions do not have all of them
            progress(f"corpus: {stats[name]:,} {meaning}")
    num_reused = len(corpus) if stats["reused"] else len(reusable.files)
    progress(
        f"tokens: {stats['num_tokens']:,} in {counted(stats['num_documents'], 'document')}, vocabulary of"
        f" {stats['vocab_size']:,}, {stats['bytes_per_token']:.2f} bytes per token;"
        f" {counted(num_reused, 'file')} reused, {len(corpus) - num_reused:,} new"
    )
    return {
        **stats,
        "tokenizer_from": origin,
        "reused_sources": num_reused,
        "new_sources": len(corpus) - num_reused,
        "num_left_out_files": len(listing.left_out),
        "first_left_out_files": listing.first_left_out,
    }
