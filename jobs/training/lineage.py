"""Describes the lineage of a model, at the end of its training."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import torch

import jobs
from jobs.config import Config, of_run
from jobs.config.sections.model import EMBED
from jobs.datasets.tokens import TokensDataset
from jobs.evaluation.frozen import read_latest
from jobs.fingerprint import code_version
from jobs.lake import store
from jobs.lake.layout import MANIFEST, Pipeline, Run
from jobs.lake.models import TOKENIZER
from jobs.lake.runs import used_datasets
from jobs.lake.uri import join, relative_name, to_uri
from jobs.model_io.lineage import Lineage, describe_corpus
from jobs.results.summary import read_values
from jobs.training.job import TrainingResult
from jobs.training.warm_start import read_start
from jobs.version import VERSION


def describe_lineage(run: Run, config: Config, result: TrainingResult, engine: str) -> Lineage:
    """Return the lineage of the model that a run has trained on `engine`."""
    tokens = TokensDataset.of_run(run)
    origin = read_values(run.step_stats("tokenize"), store.ENVIRONMENT).get("tokenizer_from")
    machine = {"engine": engine, "workers": result.workers, **(result.machine or {}), "dtype": result.dtype}
    return Lineage(
        run=run.folder,
        config=config.model_dump(mode="json", exclude=set(of_run.DEPLOYMENT)),
        datasets=used_datasets(run),
        corpus=describe_corpus(tokens.files, relative_name(join(tokens.uri, MANIFEST), run.lake_uri)),
        code=code_of(config) | package_of(),
        software=software(),
        machine=machine,
        tokenizer={"from": str(origin or ""), "sha256": tokens.manifest.entry(TOKENIZER).sha256},
        start=read_start(run),
        embeddings=hash_of_embeddings(config.train.embeddings),
        evaluation_set=read_latest(Pipeline.of(run)).version,
    )


def software() -> dict[str, str]:
    """Return the versions of Python and torch, which compute the weights."""
    return {"Python": platform.python_version(), "torch": torch.__version__}


def code_of(config: Config) -> dict[str, str]:
    """Return the version of Nightjar, and the hash of the code of each step that a model with these settings needs."""
    steps = [step for step in ("tokenize", "windows", "embed", "train") if step in config.steps]
    return {"version": VERSION, **{step: code_version(f"jobs.steps.{step}") for step in steps}}


def package_of() -> dict[str, str]:
    """Return a dict with the sha256 of the zip file from which this code was imported. It is empty for a folder."""
    archive: Any = getattr(jobs.__loader__, "archive", None)
    return {"package": hashlib.sha256(Path(archive).read_bytes()).hexdigest()} if archive else {}


def hash_of_embeddings(embeddings: str | None) -> str:
    """Return the hash of the file or dataset that `train.embeddings` names.

    Return "" if the setting does not name a file or dataset, or if the file or dataset is gone.
    """
    if embeddings in (None, EMBED):
        return ""
    uri = to_uri(str(embeddings))
    if store.exists(join(uri, MANIFEST)):
        manifest = store.read_manifest(uri)
        return manifest.fingerprint if manifest else ""
    return hashlib.sha256(store.read_bytes(uri)).hexdigest() if store.exists(uri) else ""
