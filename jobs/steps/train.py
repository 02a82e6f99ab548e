"""The train step: train the model, summarize the metrics, and publish the model folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.config import Config
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Engine
from jobs.errors import DamagedError, InputError
from jobs.generation.continuation import GenerationSettings
from jobs.generation.generate import Request, generate
from jobs.generation.inference import to_inference
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.manifest import Manifest
from jobs.lake.models import LINEAGE
from jobs.lake.runs import used_datasets
from jobs.lake.uri import base_name
from jobs.metrics.columns import baselines_text, length_text
from jobs.model.kinds import build_model
from jobs.model_io.archive import pack
from jobs.model_io.card import card_stats, write_card
from jobs.model_io.folder import CARD, TRAINING_STATS, save_model, to_json
from jobs.model_io.lineage import Lineage
from jobs.training.attempts import train_until_complete
from jobs.training.checkpoint import load_final_weights
from jobs.training.job import TrainingJob
from jobs.training.lineage import describe_lineage
from jobs.training.local_sgd.driver import clean_up
from jobs.training.metrics_writer import compact, summarize
from jobs.training.record import read_replayed
from jobs.training.warm_start import locate_start

CARD_SAMPLES = 3


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train the run's model, write the metrics and the model folder, and return the statistics.

    If the run was trained before, return the statistics of that training.
    """
    if finished := _find_finished(run):
        progress("training was finished before: nothing to do")
        return finished
    datasets = used_datasets(run)
    if not {"tokens", "windows"} <= datasets.keys():
        raise InputError(f"{run.datasets}: no windows dataset yet; run the tokenize and windows steps first")
    replayed = read_replayed(run)
    record = replayed.record if replayed else None
    job, start = locate_start(TrainingJob(run, config, datasets["windows"], record=record))
    result = train_until_complete(job, engine, progress)
    stats = {
        **summarize(compact(run), keep_best=config.train.keep_best),
        **result.to_stats(),
        **start,
    }
    _publish_model(job, stats, describe_lineage(run, config, result, engine.name))
    _publish(run, stats, datasets)
    if config.train.strategy != "allreduce":
        clean_up(job, engine)
    progress(f"validation loss {stats['valid_loss']:.3f} ({baselines_text(stats)}) after {length_text(stats)}")
    return stats


def _find_finished(run: Run) -> dict[str, Any] | None:
    """Return the statistics of a complete training, after a check of its files. Return None if it is not complete."""
    manifest = store.read_manifest(run.train)
    if manifest is None:
        return None
    store.verify_sizes(run.train, manifest)
    model = store.read_manifest(run.model)
    if model is None or model.fingerprint != manifest.inputs["model"]:
        raise DamagedError(f"{run.model}: this is not the model that the run trained; delete {run.train} and run again")
    store.verify_sizes(run.model, model)
    return manifest.counts | {"reused": True}


def _publish_model(job: TrainingJob, stats: dict[str, Any], lineage: Lineage) -> None:
    """Write the model folder and its zip file, with a card that shows samples of the model."""
    config, shape = job.config, job.open_data().shape
    model = build_model(config.model, shape).eval()
    load_final_weights(job.run, model, keep_best=config.train.keep_best)
    tokens = TokensDataset.of_run(job.run)
    tokenizer = tokens.read_tokenizer()
    requests = [Request(prompt, index) for index, prompt in enumerate(config.generate.prompts[:CARD_SAMPLES])]
    made = generate(to_inference(model), tokenizer, requests, GenerationSettings.of(config.generate))
    samples = [(sample.prompt, sample.text) for sample in made]
    card = write_card(job.run.run_id, config, tokens.files, stats, shape.vocab_size, samples, lineage)
    about = {CARD: card.encode(), TRAINING_STATS: to_json(card_stats(stats)), LINEAGE: lineage.to_json()}
    store.write_bytes(job.run.model_archive, pack(save_model(job.run.model, model, tokenizer, about)))


def _publish(run: Run, stats: dict[str, Any], datasets: dict[str, str]) -> None:
    metrics = store.write_file(run.train, base_name(run.metrics), store.read_bytes(run.metrics))
    model = store.read_manifest(run.model)
    assert model is not None
    inputs = {**datasets, "model": model.fingerprint}
    store.publish_manifest(run.train, Manifest("training", model.fingerprint, (metrics,), stats, inputs))
