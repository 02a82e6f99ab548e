"""The train step: a gang of workers trains the model; what is lost on the way is resumed from the last checkpoint."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from jobs.config import Config, GenerateConfig
from jobs.engine.base import Engine
from jobs.errors import DamagedError, DivergedError, InputError, StoppedError, WorkerLostError
from jobs.generation.continuation import GenerationSettings
from jobs.generation.generate import Request, generate
from jobs.generation.inference import to_inference
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import base_name, join
from jobs.metrics.schema import chosen
from jobs.metrics.training import QUALITY, StepRow, baselines_text
from jobs.model.kinds import build_model
from jobs.model.language_model import LanguageModel
from jobs.model_io.card import CardSample, Facts
from jobs.model_io.folder import TOKENIZER
from jobs.model_io.locate import find_model
from jobs.model_io.publish import publish_model
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.training.attempts import Attempts
from jobs.training.checkpoint import best_checkpoint, latest_checkpoint, load_weights
from jobs.training.data import TrainingData
from jobs.training.local_sgd.driver import Rounds, forget
from jobs.training.metrics import compact
from jobs.training.supervision.shutdown import Notice, passed_on
from jobs.training.worker import train_worker

log = logging.getLogger(__name__)

LAST_STEPS = 50
CARD_SAMPLES = 3


def run(run: Run, config: Config, engine: Engine, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train the run's model and write metrics and model folder; return the statistics.

    A step that was finished before is not repeated: its statistics are returned.

    Raises:
        WorkerLostError: if workers were lost more than `train.max_restarts` times.
        NightjarError: if training diverged, or the data cannot be used.
    """
    if finished := _finished(run):
        progress("training was finished before: nothing to do")
        return finished
    datasets = _datasets(run)
    facts = _train(run, _with_start(run, config), engine, datasets["windows"], progress)
    rows = compact(run)
    data = TrainingData.open(Lake(run.lake_uri), datasets["windows"])
    stats = _summary(rows, config.train.keep_best) | facts
    _write_model(run, config, data, datasets["tokens"], stats)
    _publish(run, stats, datasets)
    if config.train.strategy != "allreduce":
        forget(run, config.train.workers, engine)
    progress(f"validation loss {stats['valid_loss']:.3f} ({baselines_text(stats)})")
    return stats


def _finished(run: Run) -> dict[str, Any] | None:
    """The statistics of a training that is complete, checked by its manifest."""
    manifest = store.read_manifest(run.train)
    if manifest is None:
        return None
    store.verify_sizes(run.train, manifest)
    model = store.read_manifest(run.model)
    if model is None or model.fingerprint != manifest.inputs["model"]:
        raise DamagedError(f"{run.model}: not the model that was trained; delete {run.train} and run again")
    store.verify_sizes(run.model, model)
    return manifest.counts | {"reused": True}


def _datasets(run: Run) -> dict[str, str]:
    """The fingerprints of the run's datasets, by kind."""
    try:
        datasets: dict[str, str] = store.read_json(run.datasets)
    except FileNotFoundError:
        datasets = {}
    if not {"tokens", "windows"} <= datasets.keys():
        raise InputError(f"{run.datasets}: names no windows dataset; run the tokenize and windows steps first")
    return datasets


def _with_start(run: Run, config: Config) -> Config:
    """`config` with the place of the model that training starts from; with none once there is a checkpoint.

    Raises:
        InputError: if there is no such model.
    """
    if config.train.init is None:
        return config
    place = find_model(config.train.init, Lake(run.lake_uri)) if latest_checkpoint(run) is None else None
    return config.model_copy(update={"train": config.train.model_copy(update={"init": place})})


def _train(run: Run, config: Config, engine: Engine, windows: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train until it ends well; a lost worker costs what came after the last checkpoint.

    Raises:
        StoppedError: if this process was told to end.
    """
    attempts = Attempts(run, config.train, progress)
    with passed_on(run) as notice:
        while True:
            try:
                facts = _attempt(run, config, engine, windows, attempts.skipped, notice)
            except WorkerLostError as error:
                attempts.lost(error)
                continue
            except DivergedError as error:
                attempts.diverged(error)
                continue
            if facts.pop("is_complete"):
                counts = {"restarts": attempts.restarts, "rollbacks": len(attempts.skipped)}
                return facts | counts | {"workers": config.train.workers}
            if notice.given.is_set():
                raise StoppedError(
                    f"training was told to end (SIGTERM) and stopped after step {latest_checkpoint(run)}, whose"
                    " checkpoint is written; the same run goes on from there"
                )
            attempts.lost(WorkerLostError("a worker was told to end (SIGTERM)"))


def _attempt(
    run: Run, config: Config, engine: Engine, windows: str, skipped: tuple[int, ...], notice: Notice
) -> dict[str, Any]:
    """Train from the latest checkpoint on: as a gang, in rounds, or first one and then the other."""
    worker = partial(train_worker, run=run, config=config, windows_fingerprint=windows, skipped=skipped)
    workers, until = config.train.workers, config.train.allreduce_steps
    if config.train.strategy == "allreduce":
        return engine.run_worker_group(worker, workers, f"train with {workers} workers")
    facts: dict[str, Any] = {"is_complete": True}
    if until and (latest_checkpoint(run) or 0) < until:
        facts = engine.run_worker_group(
            partial(worker, until=until), workers, f"train {until} steps with {workers} workers"
        )
    if not facts["is_complete"]:
        return facts
    return facts | Rounds(run, config, windows, engine).run(notice.given.is_set)


def _write_model(run: Run, config: Config, data: TrainingData, tokens: str, stats: dict[str, Any]) -> None:
    """Make the model folder and its zip file of a checkpoint's weights and the dataset's tokenizer."""
    model = build_model(config.model, data.shape).eval()
    step = best_checkpoint(run) if config.train.keep_best else latest_checkpoint(run)
    if step is None:
        raise DamagedError(f"{run.checkpoints}: no whole checkpoint, though training has ended; run the step again")
    load_weights(run, step, model)
    tokenizer, sources = _tokens(Lake(run.lake_uri).tokens(tokens))
    samples = _samples(model, tokenizer, config.generate)
    publish_model(run, model, tokenizer, Facts(run.run_id, config, sources, stats, data.shape.vocab_size, samples))


def _tokens(folder: str) -> tuple[Tokenizer, list[dict[str, Any]]]:
    """The tokenizer of a tokens dataset, and the files of the corpus that it was made from."""
    manifest = store.read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no tokens here; run the tokenize step first")
    (entry,) = manifest.entries(TOKENIZER)
    tokenizer = Tokenizer.from_json(store.read_file(folder, entry), join(folder, TOKENIZER))
    return tokenizer, manifest.inputs.get("files", [])


def _samples(model: LanguageModel, tokenizer: Tokenizer, config: GenerateConfig) -> list[CardSample]:
    """The first sample of the first prompts of the configuration, for the card."""
    requests = [Request(prompt, index) for index, prompt in enumerate(config.prompts[:CARD_SAMPLES])]
    made = generate(to_inference(model), tokenizer, requests, GenerationSettings.of(config))
    return [CardSample(each.prompt, each.text) for each in made.samples]


def _summary(rows: list[StepRow], keep_best: bool) -> dict[str, Any]:
    """Statistics of all steps: means are over steps, speed is over the whole time of training.

    The validation is that of the step that the model is made of.
    """
    last = rows[-1]
    validated = [row for row in rows if "valid_loss" in row]
    published = min(validated, key=lambda row: row["valid_loss"]) if keep_best else last
    seconds = last["seconds"]
    gradient_norms = [row["gradient_norm"] for row in rows]
    return {
        "reused": False,
        **chosen(published, QUALITY),
        "batch_loss": statistics.fmean(row["loss"] for row in rows[-LAST_STEPS:]),
        "tokens_per_second": last["tokens"] / seconds,
        "num_steps": last["step"],
        "num_tokens": last["tokens"],
        "epochs": last["epoch"],
        "learning_rate": last["learning_rate"],
        "gradient_norm_mean": statistics.fmean(gradient_norms),
        "gradient_norm_max": max(gradient_norms),
        "seconds_per_step": seconds / last["step"],
        "seconds_per_epoch": seconds / last["epoch"],
        "training_seconds": seconds,
        "sync_share": sum(row["sync_milliseconds"] for row in rows) / sum(row["step_milliseconds"] for row in rows),
        "sync_bytes": sum(row["sync_bytes"] for row in rows),
        "optimizer_bytes": sum(row.get("state_bytes", 0) for row in rows),
        "states_lost": sum(row.get("states_lost", 0) for row in rows),
        "cpu_load": statistics.fmean(row["cpu_load"] for row in rows),
    }


def _publish(run: Run, stats: dict[str, Any], datasets: dict[str, str]) -> None:
    """Make the training complete."""
    metrics = store.write_file(run.train, base_name(run.metrics), store.read_bytes(run.metrics))
    model = store.read_manifest(run.model)
    assert model is not None
    inputs = {**datasets, "model": model.fingerprint}
    store.publish_manifest(run.train, store.Manifest("training", model.fingerprint, (metrics,), stats, inputs))
