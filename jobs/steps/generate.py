"""The generate step: text from the trained model, each prompt continued several times, spread over the engine's tasks.

What a task makes depends on the settings alone, and not on how many tasks there are: a batch is always the same up to
16 samples of one prompt, and each sample draws from random numbers of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from jobs import lake
from jobs.config import Config, GenerateConfig
from jobs.engine.contract import Engine
from jobs.errors import InputError
from jobs.model.folder import load_model
from jobs.model.generation import Settings, generate
from jobs.model.llama import Llama
from jobs.paths import Run
from jobs.tokens.tokenizer import Tokenizer
from jobs.training.metrics import to_jsonl

log = logging.getLogger(__name__)

SAMPLES, TEXT = "samples.jsonl", "generated.txt"
BATCH_SAMPLES = 16


@dataclass(frozen=True)
class Batch:
    """Samples of one prompt that are made together."""

    prompt_index: int
    samples: range


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Generate the run's samples; return the statistics.

    A step that was finished before is not repeated: its statistics are returned.

    Raises:
        InputError: if there is no trained model.
        DamagedError: if the model or an earlier result is not what its manifest says.
    """
    model = lake.read_manifest(run.model)
    if model is None:
        raise InputError(f"{run.model}: no model here; run the train step first")
    finished = lake.read_manifest(run.generate)
    if finished is not None and finished.inputs["model"] == model.fingerprint:
        lake.verify_sizes(run.generate, finished)
        progress("text was generated before: nothing to do")
        return finished.counts | {"reused": True}
    lake.delete_folder(run.generate)
    started = time.perf_counter()
    batches = plan(config.generate)
    make = partial(_make, run=run, config=config.generate, fingerprint=model.fingerprint)
    made = engine.map(make, batches, "generate")
    samples = [sample for batch in made for sample in batch]
    stats = _summary(samples, time.perf_counter() - started)
    files = (
        lake.write_file(run.generate, SAMPLES, to_jsonl(samples)),
        lake.write_file(run.generate, TEXT, as_text(samples).encode()),
    )
    inputs = {"model": model.fingerprint}
    lake.publish_manifest(run.generate, lake.Manifest("samples", model.fingerprint, files, stats, inputs))
    progress(f"{len(samples)} samples of {len(config.generate.prompts)} prompts")
    return stats


def plan(config: GenerateConfig) -> list[Batch]:
    """The batches of all prompts and samples, in their order."""
    starts = range(0, config.num_samples, BATCH_SAMPLES)
    return [
        Batch(index, range(start, min(start + BATCH_SAMPLES, config.num_samples)))
        for index in range(len(config.prompts))
        for start in starts
    ]


def as_text(samples: list[dict[str, Any]]) -> str:
    """The samples for reading."""
    return "\n\n".join(f"[{sample['sample'] + 1}] {sample['prompt']}{sample['text']}" for sample in samples) + "\n"


def _make(batch: Batch, run: Run, config: GenerateConfig, fingerprint: str) -> list[dict[str, Any]]:
    """The rows of one batch; runs in a task."""
    model, tokenizer = _model(run.model, fingerprint)
    settings = Settings.of(config)
    prompt = config.prompts[batch.prompt_index]
    generated = generate(
        model, tokenizer, prompt, settings, prompt_index=batch.prompt_index, sample_indices=batch.samples
    )
    shown = config.model_dump(exclude={"prompts", "num_samples", "seed"})
    return [
        {
            "prompt_index": batch.prompt_index,
            "sample": index,
            "prompt": prompt,
            "text": sample.text,
            "tokens": sample.tokens,
            "log_probability": sum(sample.log_probabilities),
            "prompt_tokens_dropped": sample.prompt_tokens_dropped,
            "seed": settings.seed,
            "settings": shown,
            "tokens_per_second": generated.tokens_per_second,
        }
        for index, sample in zip(batch.samples, generated.samples, strict=True)
    ]


@lru_cache(maxsize=1)
def _model(folder_uri: str, fingerprint: str) -> tuple[Llama, Tokenizer]:
    """The model, loaded once by each process, and again when another stands in its place."""
    return load_model(folder_uri)


def _summary(samples: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    return {
        "reused": False,
        "num_samples": len(samples),
        "num_tokens": sum(len(sample["tokens"]) for sample in samples),
        "tokens_per_second": sum(len(sample["tokens"]) for sample in samples) / seconds,
        "generation_seconds": seconds,
        "first_prompt": samples[0]["prompt"],
        "first_sample": samples[0]["text"],
    }
