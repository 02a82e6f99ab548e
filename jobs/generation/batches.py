"""The samples of a run in batches, which tasks generate independently of each other.

A batch always holds the same samples, and each sample has its own random numbers. So the samples do not depend on the
number of tasks, or on which task generates a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, TypedDict

from jobs.config import GenerateConfig
from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.generate import Request, generate
from jobs.generation.inference import to_inference
from jobs.generation.stream import InferenceModel
from jobs.metrics.stats import GenerateStats
from jobs.model_io.folder import load_model
from jobs.tokenizer.tokenizer import Tokenizer

BATCH_SAMPLES = 32


class SampleRow(TypedDict):
    """A line of ``generate/samples.jsonl``."""

    prompt_index: int
    sample: int
    """Number of the sample among those of its prompt, from 0."""
    prompt: str
    text: str
    """The continuation, without the prompt."""
    tokens: list[int]
    log_probability: float
    """Sum over the tokens, in nats, by the model's distribution before sampling changes it."""
    finish: str | None
    prompt_tokens_dropped: int
    unknown_words: list[str]
    seed: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class GeneratedBatch:
    """The samples of one batch, and the duration of their generation without loading the model."""

    rows: list[SampleRow]
    seconds: float


def plan_batches(prompts: Sequence[str], num_samples: int) -> list[list[Request]]:
    """Return the requests for `num_samples` samples of each prompt, in order and cut into batches."""
    pairs = product(enumerate(prompts), range(num_samples))
    requests = [Request(prompt, index, sample) for (index, prompt), sample in pairs]
    return [requests[start : start + BATCH_SAMPLES] for start in range(0, len(requests), BATCH_SAMPLES)]


def generate_batch(
    requests: Sequence[Request], model_uri: str, fingerprint: str, config: GenerateConfig
) -> GeneratedBatch:
    """Generate one batch.

    Args:
        requests: The samples to generate.
        model_uri: The model folder.
        fingerprint: The fingerprint of the model, by which a process notices that the folder has another model now.
        config: The settings of the run.
    """
    model, tokenizer = load_inference(model_uri, fingerprint, config.dtype)
    made = generate(model, tokenizer, requests, GenerationSettings.of(config))
    rows = [_row(*pair, config) for pair in zip(requests, made.samples, strict=True)]
    return GeneratedBatch(rows, made.seconds)


@lru_cache(maxsize=1)
def load_inference(model_uri: str, fingerprint: str, dtype: str) -> tuple[InferenceModel, Tokenizer]:
    """Load a model for generation, once per process; see `generate_batch` for the arguments."""
    model, tokenizer = load_model(model_uri)
    return to_inference(model, dtype), tokenizer


def summarize(batches: Sequence[GeneratedBatch], seconds: float) -> GenerateStats:
    """Return the statistics of all batches, which took `seconds` together with loading the model."""
    rows = [row for batch in batches for row in batch.rows]
    num_tokens = sum(len(row["tokens"]) for row in rows)
    return {
        "reused": False,
        "num_samples": len(rows),
        "num_tokens": num_tokens,
        "num_prompts_cut": len({row["prompt_index"] for row in rows if row["prompt_tokens_dropped"]}),
        "num_prompts_with_unknown_words": len({row["prompt_index"] for row in rows if row["unknown_words"]}),
        "tokens_per_second": num_tokens / seconds,
        "task_tokens_per_second": num_tokens / sum(batch.seconds for batch in batches),
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
        "settings": config.model_dump(exclude={"prompts", "prompts_file", "num_samples", "seed"}),
    }
