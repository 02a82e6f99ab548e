"""Run our tokenize step in its own process: ``python -m bench.tokenize_step TEXT_FOLDER TOKENIZER LAKE ENGINE CORES``.

It prints one JSON object: the seconds for starting the session, the seconds of the step and, on the inline engine, the
seconds of its parts. Parts are measured by wrapping the functions in `PARTS`.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any

from jobs.config import resolve
from jobs.engine.base import Engine
from jobs.engine.inline import InlineEngine
from jobs.lake.layout import Lake
from jobs.lake.store import write_bytes
from jobs.lake.uri import to_uri
from jobs.pipeline import run_step

# The module and name under which the step looks up each function. The parts do not overlap.
PARTS = {
    "check (hash, UTF-8)": ("jobs.corpus.check", "check_sources"),
    "read and cut": ("jobs.corpus.documents", "_read_range"),
    "encode (gigatoken)": ("jobs.tokenizer.tokenizer", "Tokenizer.encode_batch"),
    "hash documents": ("jobs.corpus.texts", "Texts.hashes"),
    "write": ("jobs.datasets.shards", "EncodedDocuments.write"),
}


def main(text: str, tokenizer: str, lake_path: str, engine_name: str, cores: int) -> dict[str, Any]:
    """Run the step and return the measurements."""
    seconds = _wrap_parts() if engine_name == "inline" else Counter[str]()
    config = resolve(to_uri(text), "demo", {"tokenize.tokenizer": tokenizer, "log_level": "WARN"})
    run = Lake(to_uri(lake_path)).run("bench")
    write_bytes(run.config, config.to_json().encode())
    started = time.perf_counter()
    engine = _engine(engine_name, config.spark, cores)
    ready = time.perf_counter()
    stats = run_step("tokenize", run, config, engine)
    done = time.perf_counter()
    return {
        "session": ready - started,
        "seconds": done - ready,
        "bytes": stats["num_bytes"],
        "tokens": stats["num_tokens"],
        "parts": dict(seconds),
        "stages": engine.stages(),
    }


def _engine(name: str, config: Any, cores: int) -> Engine:
    if name == "inline":
        return InlineEngine()
    from jobs.engine.spark import SparkEngine

    return SparkEngine(config, f"local[{cores}]")


def _wrap_parts() -> Counter[str]:
    seconds = Counter[str]()
    for part, (module, path) in PARTS.items():
        owner: Any = import_module(module)
        *classes, name = path.split(".")
        for each in classes:
            owner = getattr(owner, each)
        setattr(owner, name, _timed(getattr(owner, name), part, seconds))
    return seconds


def _timed(function: Callable[..., Any], part: str, seconds: Counter[str]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            seconds[part] += time.perf_counter() - started  # type: ignore[assignment]  # a Counter of floats

    return timed


if __name__ == "__main__":
    text_folder, tokenizer_path, lake_folder, chosen, slots = sys.argv[1:]
    sys.stdout.write(json.dumps(main(text_folder, tokenizer_path, lake_folder, chosen, int(slots))) + "\n")
