"""Batches of a run's samples, which tasks generate independently of each other.

A batch always holds the same samples, and each sample has its own random numbers, so the samples do not depend on the
number of tasks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any, TypedDict

from jobs.config import GenerateConfig
from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.generate import Request, generate
from jobs.generation.inference import InferenceModel, to_inference
from jobs.metrics.stats import GenerateStats
from jobs.model_io.folder import load_model
from jobs.tokenizer.tokenizer import Tokenizer

BATCH_SAMPLES = 32


class SampleRow(TypedDict):
    """A line of ``generate/samples.jsonl``."""

    prompt_index: int
    sample: int
    """Number of the sample among the samples of its prompt, from 0."""
    prompt: str
    text: str
    """The continuation, without the prompt."""
    tokens: list[int]
    log_probability: float
    """Sum of the tokens' log probabilities, in nats, in the model's distribution before sampling changes it."""
    finish: str | None
    prompt_tokens_dropped: int
    unknown_words: list[str]
    seed: int
    settings: dict[str, Any]


def plan_batches(prompts: Sequence[str], num_samples: int) -> list[list[Request]]:
    """Return the requests for `num_samples` samples of each prompt, in order and cut into batches."""
    pairs = product(enumerate(prompts), range(num_samples))
    requests = [Request(prompt, index, sample) for (index, prompt), sample in pairs]
    return [requests[start : start + BATCH_SAMPLES] for start in range(0, len(requests), BATCH_SAMPLES)]


def generate_batch(
    requests: Sequence[Request], model_uri: str, fingerprint: str, config: GenerateConfig
) -> tuple[list[SampleRow], float]:
    """Return the samples of one batch, and the seconds that their generation took, without the loading of the model.

    The process keeps the loaded model for its next batches. It loads the model of a later batch only if `model_uri`,
    `fingerprint` or `config.dtype` differs.
    """
    model, tokenizer = load_inference(model_uri, fingerprint, config.dtype)
    started = time.perf_counter()
    samples = generate(model, tokenizer, requests, GenerationSettings.of(config))
    seconds = time.perf_counter() - started
    return [_row(*pair, config) for pair in zip(requests, samples, strict=True)], seconds


@lru_cache(maxsize=1)
def load_inference(model_uri: str, fingerprint: str, dtype: str) -> tuple[InferenceModel, Tokenizer]:
    """Load a model for generation. The process keeps the last model that it loaded."""
    model, tokenizer = load_model(model_uri)
    return to_inference(model, dtype), tokenizer


def summarize(rows: Sequence[SampleRow], seconds: float, task_seconds: float) -> GenerateStats:
    """Return the statistics of all samples. `seconds` is the wall time, `task_seconds` the sum of the tasks' times."""
    num_tokens = sum(len(row["tokens"]) for row in rows)
    return {
        "reused": False,
        "num_samples": len(rows),
        "num_tokens": num_tokens,
        "num_prompts_cut": len({row["prompt_index"] for row in rows if row["prompt_tokens_dropped"]}),
        "num_prompts_with_unknown_words": len({row["prompt_index"] for row in rows if row["unknown_words"]}),
        "tokens_per_second": num_tokens / seconds,
        "task_tokens_per_second": num_tokens / task_seconds,
        "generation_seconds": seconds,
        "first_prompt": rows[0]["prompt"],
        "first_sample": rows[0]["text"],
    }


def to_text(rows: Sequence[SampleRow]) -> str:
    """Return the content of ``generate/generated.txt``: the samples with their prompts, numbered per prompt."""
    return "\n\n".join(f"[{row['sample'] + 1}] {row['prompt']}{row['text']}" for row in rows) + "\n"


def _row(request: Request, sample: Continuation, config: GenerateConfig) -> SampleRow:
    return {
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
        "settings": config.model_dump(exclude={"prompts", "prompts_file", "prompt_unit", "num_samples", "seed"}),
    }
