"""The names of all folders and files in the lake, as pure functions of strings.

Other programs rely on these names: a change needs a lake of the earlier layout to stay readable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from jobs.errors import InputError
from jobs.lake.uri import join, to_uri

MANIFEST = "_manifest.json"


def safe_run_id(run_id: str) -> str:
    """Return `run_id` as the name of a folder. Airflow's ids have ``:`` and ``+``, which some file systems refuse."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", run_id).strip("-.") or "run"


@dataclass(frozen=True)
class Run:
    """A run, whose folder is ``<lake>/runs/<run_id>``. The properties are URIs."""

    lake_uri: str
    run_id: str

    @property
    def uri(self) -> str:
        """The run's folder."""
        return join(self.lake_uri, "runs", self.run_id)

    @property
    def config(self) -> str:
        """The resolved configuration, written once."""
        return join(self.uri, "config.json")

    @property
    def datasets(self) -> str:
        """The fingerprints of the run's datasets: ``{"tokens": ..., "windows": ..., "embeddings": ...}``."""
        return join(self.uri, "datasets.json")

    @property
    def train(self) -> str:
        """The folder of metrics and checkpoints. Training is complete when it has a manifest."""
        return join(self.uri, "train")

    @property
    def checkpoints(self) -> str:
        """The folder with one folder for each checkpoint."""
        return join(self.train, "checkpoints")

    def checkpoint(self, step: int) -> str:
        """Return the folder of the checkpoint after `step` optimizer steps."""
        return join(self.checkpoints, f"{step:08d}")

    @property
    def stop(self) -> str:
        """A file that asks the workers to stop after their current step."""
        return join(self.train, "stop")

    @property
    def attempts(self) -> str:
        """The counts of restarts and of skipped batches."""
        return join(self.train, "attempts.json")

    @property
    def rounds(self) -> str:
        """The files that workers of the round-based strategies exchange during training."""
        return join(self.train, "rounds")

    @property
    def metrics_parts(self) -> str:
        """The folder of small files of metrics, written during training."""
        return join(self.train, "metrics")

    @property
    def metrics(self) -> str:
        """All metrics, one line for each step, written at the end of training."""
        return join(self.train, "metrics.jsonl")

    @property
    def tensorboard(self) -> str:
        """The folder that TensorBoard opens."""
        return join(self.train, "tensorboard")

    @property
    def generate(self) -> str:
        """The folder of generated text and samples."""
        return join(self.uri, "generate")

    @property
    def model(self) -> str:
        """The folder of the trained model."""
        return join(self.uri, "model")

    @property
    def model_archive(self) -> str:
        """The model's folder as one zip file."""
        return join(self.uri, "model.zip")

    @property
    def stats(self) -> str:
        """The folder of statistics, of each step and merged."""
        return join(self.uri, "stats")

    def step_stats(self, step: str) -> str:
        """Return the file with the statistics of one step."""
        return join(self.stats, f"{step}.json")

    def progress(self, step: str) -> str:
        """Return the file in which a running step reports its progress."""
        return join(self.uri, "progress", f"{step}.json")

    @classmethod
    def of_config(cls, config_uri: str) -> Run:
        """Return the run whose configuration is ``<lake>/runs/<run_id>/config.json``.

        Raises:
            InputError: if `config_uri` has another form.
        """
        parts = to_uri(config_uri).rsplit("/", 3)
        if len(parts) != 4 or parts[1] != "runs" or parts[3] != "config.json":
            raise InputError(f"{config_uri}: not a run's configuration; expected <lake>/runs/<run_id>/config.json")
        return cls(parts[0], unquote(parts[2]))


@dataclass(frozen=True)
class Lake:
    """The folder that has everything: datasets, runs, models, packages and logs. The properties are URIs."""

    uri: str

    def run(self, run_id: str) -> Run:
        """Return the run with this id."""
        return Run(self.uri, safe_run_id(run_id))

    @property
    def runs(self) -> str:
        """The folder of all runs."""
        return join(self.uri, "runs")

    def dataset(self, kind: str, fingerprint: str) -> str:
        """Return the folder of a dataset."""
        return join(self.uri, "datasets", kind, fingerprint)

    def tokens(self, fingerprint: str) -> str:
        """Return the folder of a dataset of token shards."""
        return self.dataset("tokens", fingerprint)

    def windows(self, fingerprint: str) -> str:
        """Return the folder of a dataset of window shards."""
        return self.dataset("windows", fingerprint)

    def embeddings(self, fingerprint: str) -> str:
        """Return the folder of a dataset of token vectors."""
        return self.dataset("embeddings", fingerprint)

    def package(self, sha256: str) -> str:
        """Return the folder of a packaged job, by the hash of its content."""
        return join(self.uri, "packages", sha256)

    def wheelhouse(self, sha256: str) -> str:
        """Return the folder of wheels for nodes without internet, by the hash of their hashes."""
        return join(self.uri, "wheelhouses", sha256)

    @property
    def models(self) -> str:
        """The folder of promoted models."""
        return join(self.uri, "models")

    @property
    def champion(self) -> str:
        """The pointer to the promoted model that is in use."""
        return join(self.models, "champion.json")

    @property
    def logs(self) -> str:
        """The folder of the clusters' logs, in EMR's layout."""
        return join(self.uri, "logs")
