"""The generate step: generates samples of text, in tasks, with the model that the run trained or uses.

Durations are only in the statistics, so two runs with the same model write the same ``samples.jsonl``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from jobs.config import Config
from jobs.config.prompts import read_prompts
from jobs.engine.base import Engine
from jobs.errors import InputError, counted
from jobs.generation.sample_batches import generate_batch, plan_batches, summarize, to_text
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.manifest import Manifest
from jobs.lake.models import UsedModel, decide_used
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import base_name
from jobs.metrics.stats import UsedModelStats

TEXT = "generated.txt"


def all_prompts(config: Config) -> tuple[str, ...]:
    """Return the prompts of the run. If the run may promote its model, the canary prompts follow."""
    prompts = read_prompts(config.generate, store.read_bytes)
    canaries = config.promotion.canaries if config.promotes else ()
    return (*prompts, *(canary for canary in canaries if canary not in prompts))


def _find_model(run: Run, config: Config) -> tuple[UsedModel, UsedModelStats]:
    """Return the model to generate with, and its statistics. The statistics are empty if the run trained the model."""
    if config.use.model is not None:
        used = decide_used(run, config.use.model)
        return used, used.to_stats()
    model = store.read_manifest(run.model)
    if model is None:
        raise InputError(f"{run.model}: no model here; run the train step first")
    return UsedModel(run.run_id, run.model, model.fingerprint), {}


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Generate the run's samples and return the statistics. Finished samples of the same model are reused."""
    model, about = _find_model(run, config)
    finished = store.read_manifest(run.generate)
    if finished is not None and finished.inputs["model"] == model.fingerprint:
        store.verify_sizes(run.generate, finished)
        progress("the samples of this model exist already")
        return finished.counts | {"reused": True}
    store.delete_folder(run.generate)
    started = time.perf_counter()
    prompts = all_prompts(config)
    make = partial(generate_batch, model_uri=model.uri, fingerprint=model.fingerprint, config=config.generate)
    batches = engine.map(make, plan_batches(prompts, config.generate.num_samples), "generate")
    rows = [row for batch, _ in batches for row in batch]
    seconds = time.perf_counter() - started
    stats = {**summarize(rows, seconds, sum(each for _, each in batches)), **about}
    files = (
        store.write_file(run.generate, base_name(run.samples), to_jsonl(rows)),
        store.write_file(run.generate, TEXT, to_text(rows).encode()),
    )
    inputs = {"model": model.fingerprint}
    store.publish_manifest(run.generate, Manifest("samples", model.fingerprint, files, stats, inputs))
    progress(
        f"{counted(len(rows), 'sample')} of {counted(len(prompts), 'prompt')},"
        f" {stats['tokens_per_second']:,.0f} tokens/s"
    )
    return stats
