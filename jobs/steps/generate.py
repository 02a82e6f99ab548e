"""The generate step: text from the trained model, each prompt continued several times, spread over the engine's tasks.

What is made depends on the settings alone, and not on how it is spread: a batch is always the same samples, and each
sample draws from random numbers of its own. How long it took stands in the statistics: two runs of one model leave the
same ``samples.jsonl``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Any

from jobs.config import Config, GenerateConfig
from jobs.config.prompts import read_prompts
from jobs.engine.base import Engine
from jobs.errors import InputError
from jobs.generation.continuation import Settings
from jobs.generation.generate import Generated, Request, generate
from jobs.generation.stream import InferenceModel
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.metrics.training import to_jsonl
from jobs.model.kinds import for_generating
from jobs.model_io.folder import load_model
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

SAMPLES, TEXT = "samples.jsonl", "generated.txt"
BATCH_SAMPLES = 32


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Generate the run's samples; return the statistics.

    A step that was finished before is not repeated: its statistics are returned.

    Raises:
        InputError: if there is no trained model.
        DamagedError: if the model or an earlier result is not what its manifest says.
    """
    model = store.read_manifest(run.model)
    if model is None:
        raise InputError(f"{run.model}: no model here; run the train step first")
    finished = store.read_manifest(run.generate)
    if finished is not None and finished.inputs["model"] == model.fingerprint:
        store.verify_sizes(run.generate, finished)
        progress("text was generated before: nothing to do")
        return finished.counts | {"reused": True}
    store.delete_folder(run.generate)
    started = time.perf_counter()
    prompts = read_prompts(config.generate, store.read_bytes)
    requests = plan(prompts, config.generate.num_samples)
    make = partial(_make, run=run, config=config.generate, fingerprint=model.fingerprint)
    made = engine.map(make, requests, "generate")
    rows = [row for task in made for row in task.rows]
    stats = _summary(made, rows, time.perf_counter() - started)
    files = (
        store.write_file(run.generate, SAMPLES, to_jsonl(rows)),
        store.write_file(run.generate, TEXT, as_text(rows).encode()),
    )
    inputs = {"model": model.fingerprint}
    store.publish_manifest(run.generate, store.Manifest("samples", model.fingerprint, files, stats, inputs))
    progress(f"{len(rows)} samples of {len(prompts)} prompts, {stats['tokens_per_second']:,.0f} tokens/s")
    return stats


def plan(prompts: Sequence[str], num_samples: int) -> list[list[Request]]:
    """The samples of all prompts in their order, cut into batches."""
    pairs = product(enumerate(prompts), range(num_samples))
    requests = [Request(prompt, index, sample) for (index, prompt), sample in pairs]
    return [requests[start : start + BATCH_SAMPLES] for start in range(0, len(requests), BATCH_SAMPLES)]


def as_text(rows: list[dict[str, Any]]) -> str:
    """The samples for reading."""
    return "\n\n".join(f"[{row['sample'] + 1}] {row['prompt']}{row['text']}" for row in rows) + "\n"


@dataclass(frozen=True)
class _Made:
    """What a task made: rows of ``samples.jsonl``, and how long it decoded."""

    rows: list[dict[str, Any]]
    seconds: float


def _make(requests: list[Request], run: Run, config: GenerateConfig, fingerprint: str) -> _Made:
    """Make one batch; runs in a task."""
    model, tokenizer = _model(run.model, fingerprint, config.dtype)
    made = generate(model, tokenizer, requests, Settings.of(config))
    return _Made(_rows(requests, made, config), made.seconds)


def _rows(requests: list[Request], made: Generated, config: GenerateConfig) -> list[dict[str, Any]]:
    settings = config.model_dump(exclude={"prompts", "prompts_file", "num_samples", "seed"})
    return [
        {
            "prompt_index": request.prompt_index,
            "sample": request.sample,
            "prompt": request.prompt,
            "text": sample.text,
            "tokens": sample.tokens,
            "log_probability": sum(sample.log_probabilities),
            "finish": sample.finish,
            "prompt_tokens_dropped": sample.prompt_tokens_dropped,
            "unknown_words": list(sample.unknown_words),
            "seed": config.seed,
            "settings": settings,
        }
        for request, sample in zip(requests, made.samples, strict=True)
    ]


@lru_cache(maxsize=1)
def _model(folder_uri: str, fingerprint: str, dtype: str) -> tuple[InferenceModel, Tokenizer]:
    """The model, loaded once by each process, and again when another stands in its place."""
    model, tokenizer = load_model(folder_uri)
    return for_generating(model, dtype), tokenizer


def _summary(made: list[_Made], rows: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    num_tokens = sum(len(row["tokens"]) for row in rows)
    return {
        "reused": False,
        "num_samples": len(rows),
        "num_tokens": num_tokens,
        "num_prompts_cut": len({row["prompt_index"] for row in rows if row["prompt_tokens_dropped"]}),
        "num_prompts_with_unknown_words": len({row["prompt_index"] for row in rows if row["unknown_words"]}),
        "tokens_per_second": num_tokens / seconds,
        "task_tokens_per_second": num_tokens / sum(task.seconds for task in made),
        "generation_seconds": seconds,
        "first_prompt": rows[0]["prompt"],
        "first_sample": rows[0]["text"],
    }
