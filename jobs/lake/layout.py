"""The names of all folders and files in the lake, as pure functions of strings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from jobs.errors import InputError
from jobs.lake.uri import join, to_uri

MANIFEST = "_manifest.json"


def safe_run_id(run_id: str) -> str:
    """`run_id` as it stands in the lake: Airflow's own hold ``:`` and ``+``, which some file systems refuse."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", run_id).strip("-.") or "run"


@dataclass(frozen=True)
class Run:
    """The folder of one run: ``<lake>/runs/<run_id>``."""

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
        """Which datasets this run uses: ``{"tokens": fingerprint, "windows": fingerprint}``."""
        return join(self.uri, "datasets.json")

    @property
    def train(self) -> str:
        """Metrics and checkpoints; its manifest says that training is complete."""
        return join(self.uri, "train")

    @property
    def checkpoints(self) -> str:
        """One folder for each checkpoint, named by its step."""
        return join(self.train, "checkpoints")

    def checkpoint(self, step: int) -> str:
        """The checkpoint after `step` optimizer steps."""
        return join(self.checkpoints, f"{step:08d}")

    @property
    def stop(self) -> str:
        """While it is there, the workers are to stop after their step."""
        return join(self.train, "stop")

    @property
    def attempts(self) -> str:
        """What was lost so far: restarts, and batches that are left out."""
        return join(self.train, "attempts.json")

    @property
    def rounds(self) -> str:
        """What workers of rounds tell each other, while training runs."""
        return join(self.train, "rounds")

    @property
    def metrics_parts(self) -> str:
        """Small files of metrics, written while training runs."""
        return join(self.train, "metrics")

    @property
    def metrics(self) -> str:
        """All metrics, one line a step, written at the end."""
        return join(self.train, "metrics.jsonl")

    @property
    def tensorboard(self) -> str:
        """An event file with the metrics of all steps, which TensorBoard opens."""
        return join(self.train, "tensorboard")

    @property
    def generate(self) -> str:
        """Generated text and samples."""
        return join(self.uri, "generate")

    @property
    def model(self) -> str:
        """The trained model's folder."""
        return join(self.uri, "model")

    @property
    def model_archive(self) -> str:
        """The model's folder as one file."""
        return join(self.uri, "model.zip")

    @property
    def stats(self) -> str:
        """Statistics of each step and merged ones."""
        return join(self.uri, "stats")

    def step_stats(self, step: str) -> str:
        """The statistics of one step."""
        return join(self.stats, f"{step}.json")

    def progress(self, step: str) -> str:
        """One small object that tells how far a running step is."""
        return join(self.uri, "progress", f"{step}.json")

    @classmethod
    def of_config(cls, config_uri: str) -> Run:
        """The run whose configuration stands at ``<lake>/runs/<run_id>/config.json``.

        Raises:
            InputError: if `config_uri` is not such a place.
        """
        parts = to_uri(config_uri).rsplit("/", 3)
        if len(parts) != 4 or parts[1] != "runs" or parts[3] != "config.json":
            raise InputError(f"{config_uri}: not a run's configuration; expected <lake>/runs/<run_id>/config.json")
        return cls(parts[0], unquote(parts[2]))


@dataclass(frozen=True)
class Lake:
    """The folder under which everything lies."""

    uri: str

    def run(self, run_id: str) -> Run:
        """The folder of a run."""
        return Run(self.uri, safe_run_id(run_id))

    @property
    def runs(self) -> str:
        """The folder of all runs."""
        return join(self.uri, "runs")

    def dataset(self, kind: str, fingerprint: str) -> str:
        """Return the folder of a dataset."""
        return join(self.uri, "datasets", kind, fingerprint)

    def tokens(self, fingerprint: str) -> str:
        """A dataset of token shards."""
        return self.dataset("tokens", fingerprint)

    def windows(self, fingerprint: str) -> str:
        """A dataset of window shards."""
        return self.dataset("windows", fingerprint)

    def embeddings(self, fingerprint: str) -> str:
        """A dataset of vectors, one for each token."""
        return self.dataset("embeddings", fingerprint)

    def package(self, sha256: str) -> str:
        """The packaged job, by the hash of its content."""
        return join(self.uri, "packages", sha256)

    def wheelhouse(self, sha256: str) -> str:
        """The wheels that nodes without internet install from, by the hash of their hashes."""
        return join(self.uri, "wheelhouses", sha256)

    @property
    def models(self) -> str:
        """Promoted models."""
        return join(self.uri, "models")

    @property
    def champion(self) -> str:
        """The pointer to the promoted model that is in use."""
        return join(self.models, "champion.json")

    @property
    def logs(self) -> str:
        """Where the cluster puts its logs, in EMR's own layout."""
        return join(self.uri, "logs")
