"""The names of all folders and files in the lake, as pure functions of strings.

Other programs rely on these names. If a name changes, lakes in the earlier layout (that of version 0.1) must stay
readable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from jobs.errors import InputError
from jobs.lake.identity import DEFAULT, LOCAL, PROJECT, decode_name, encode_name, is_project
from jobs.lake.names import below, is_plain
from jobs.lake.uri import base_name, join, to_uri

MANIFEST = "_manifest.json"
REPORT = "report.html"
FIRST_CLUSTER = "0001.json"
"""Name of the file in `Run.clusters` with the record of the first cluster. Written again when the run ends."""
LAKE_FOLDERS = ("audit", "datasets", "forgotten", "logs", "models", "packages", "pipelines", "runs", "wheelhouses")
"""The folders of a lake that Nightjar writes. A lake may have other folders, such as a folder of texts."""


class _Below:
    """A property whose value is the URI of a file or folder in a run, pipeline or lake."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __get__(self, owner: Run | Pipeline | Lake, _: type) -> str:
        return join(owner.uri, *self._names)


@dataclass(frozen=True)
class Run:
    """A run: its names, and the URIs of its folder and of the files and folders in it."""

    lake_uri: str
    folder: str
    """The run's folder below ``<lake>/runs``: ``<project>/<pipeline>/<run>``, or ``<run id>`` in the earlier layout."""
    given_id: str = field(default="", compare=False, repr=False)
    """The run id, or "" if it is not known. It cannot be decoded from a folder whose name was cut."""

    owner = _Below("owner.json")
    """The owner of the run: project, pipeline, run id and configuration. Written once, before anything else."""
    lock = _Below("lock.json")
    """The lock, which says which program works on the run."""
    config = _Below("config.json")
    """The resolved configuration, written once."""
    estimate = _Below("estimate.json")
    """The estimate of instance time and cost, written once, before the run has a cluster."""
    budget = _Below("budget.json")
    """What training needs to stay within the budget: the cluster's cost per hour and this month's other costs."""
    replay = _Below("replay.json")
    """Only in a replay: the run whose model is made again, and the record of that run's training."""
    used = _Below("use.json")
    """The model that the run uses instead of training one: ``{"name", "uri", "fingerprint"}``, written once."""
    datasets = _Below("datasets.json")
    """The fingerprints of the run's datasets: ``{"tokens": ..., "windows": ..., "embeddings": ...}``."""
    clusters = _Below("clusters")
    """The folder of the record of clusters, with one file for each of the run's clusters."""
    train = _Below("train")
    """The folder of metrics and checkpoints. Training is complete when this folder has a manifest."""
    start = _Below("train", "start.json")
    """The model that training started from."""
    checkpoints = _Below("train", "checkpoints")
    """The folder with one folder for each checkpoint."""
    stop = _Below("train", "stop")
    """A file whose existence makes the workers stop after their current step."""
    attempts = _Below("train", "attempts.json")
    """How often training was restarted, and the numbers of the batches that it leaves out after a divergence."""
    rounds = _Below("train", "rounds")
    """The files that workers of the round-based strategies exchange during training."""
    metrics_parts = _Below("train", "metrics")
    """The folder of small metrics files, written during training."""
    metrics = _Below("train", "metrics.jsonl")
    """All metrics, one line for each optimizer step, written at the end of training."""
    tensorboard = _Below("train", "tensorboard")
    """The folder that TensorBoard opens."""
    generate = _Below("generate")
    """The folder of generated text and samples."""
    samples = _Below("generate", "samples.jsonl")
    """The generated samples, one in each line."""
    score = _Below("score")
    """The folder of the scores: the loss of each document of the evaluation set, under the model and the champion."""
    evaluation = _Below("evaluate")
    """The folder of the evaluation of the used model: its loss on each document."""
    model = _Below("model")
    """The folder of the trained model."""
    model_archive = _Below("model.zip")
    """The model's folder as one zip file."""
    stats = _Below("stats")
    """The folder of statistics: those of each pipeline step, and all of them merged."""
    promotion = _Below("stats", "promotion.json")
    """The decision about promotion: whether the model was promoted, why, and the numbers behind it."""
    report = _Below("stats", REPORT)
    """The report of the run, a page for a browser."""
    spark_events = _Below("spark")
    """The folder of Spark's event logs, one for each application."""

    @property
    def uri(self) -> str:
        """The run's folder."""
        return join(self.lake_uri, "runs", self.folder)

    @property
    def run_id(self) -> str:
        """The run id, as Airflow or a person gave it."""
        return self.given_id or decode_name(self.folder.rpartition("/")[2])

    @property
    def project(self) -> str:
        """The project, or "" in the earlier layout."""
        return self.folder.rpartition("/")[0].partition("/")[0]

    @property
    def pipeline(self) -> str:
        """The pipeline, or "" in the earlier layout."""
        return decode_name(self.folder.rpartition("/")[0].partition("/")[2])

    def deployment(self, number: int) -> str:
        """Return the file with the settings of the deployment, written at their `number`-th change, counted from 1."""
        return join(self.uri, f"deployment-{number}.json")

    def checkpoint(self, step: int) -> str:
        """Return the folder of the checkpoint after `step` optimizer steps."""
        return join(self.checkpoints, f"{step:08d}")

    def step_stats(self, step: str) -> str:
        """Return the file with the statistics of one pipeline step."""
        return join(self.stats, f"{step}.json")

    def progress(self, step: str) -> str:
        """Return the file in which a running pipeline step reports its progress."""
        return join(self.uri, "progress", f"{step}.json")

    def step_attempts(self, step: str) -> str:
        """Return the folder of the attempts at a pipeline step. Each attempt has a folder, named by its number."""
        return join(self.uri, "steps", step)

    def submission(self, step: str, attempt: int) -> str:
        """Return the file with the request to EMR for an attempt at a pipeline step, and with EMR's answer."""
        return join(self.step_attempts(step), str(attempt), "submitted.json")

    def outcome(self, step: str, attempt: int) -> str:
        """Return the file with the outcome of an attempt at a pipeline step."""
        return join(self.step_attempts(step), str(attempt), "outcome.json")

    @classmethod
    def of_config(cls, config_uri: str) -> Run:
        """Return the run whose configuration is at `config_uri`.

        The URI is ``<lake>/runs/<project>/<pipeline>/<run>/config.json``, or ``<lake>/runs/<run id>/config.json`` in
        the earlier layout.
        """
        uri = to_uri(config_uri)
        for depth in (1, 3):  # no pipeline is called `runs`, so only one depth fits
            lake_uri, *names = uri.rsplit("/", depth + 2)
            if len(names) == depth + 2 and names[0] == "runs" and names[-1] == "config.json":
                folder = "/".join(map(base_name, names[1:-1]))
                if is_plain(folder) and folder.count("/") == depth - 1:
                    return cls(lake_uri, folder)
        raise InputError(
            f"{config_uri}: not a run's configuration; expected <lake>/runs/<project>/<pipeline>/<run>/config.json"
        )


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of a lake, such as a nightly one: its name, and the URIs of what its runs share."""

    lake_uri: str
    name: str = DEFAULT

    champion = _Below("champion.json")
    """The pointer to the promoted model that is in use, with the history of its changes."""
    lock = _Below("lock.json")
    """The lock, which says which run has its turn to train and promote. Other runs wait."""
    last = _Below("last.json")
    """Hashes of corpus, code and settings of the last successful runs. A run with equal hashes has nothing to do."""
    split = _Below("split")
    """The folder of the fixed split: the decided side of each document."""
    frozen = _Below("frozen")
    """The folder of the evaluation set, with one folder for each version."""

    @property
    def uri(self) -> str:
        """The pipeline's folder."""
        return join(self.lake_uri, "pipelines", encode_name(self.name))

    @classmethod
    def of(cls, run: Run) -> Pipeline:
        """Return the pipeline of a run: `LOCAL` without Airflow, and `DEFAULT` in the earlier layout."""
        return cls(run.lake_uri, run.pipeline or DEFAULT)


@dataclass(frozen=True)
class Lake:
    """The folder that has everything: the URIs of datasets, runs, models, packages and logs."""

    uri: str

    corpora = _Below("corpora")
    """The folder of texts to train on, which the user fills."""
    runs = _Below("runs")
    models = _Below("models")
    """The folder of promoted models."""
    earlier_champion = _Below("models", "champion.json")
    """The pointer to the promoted model in the earlier layout, which had one champion for all pipelines."""
    audit = _Below("audit")
    """The folder of records that say what was deleted, by whom and why."""
    forgotten = _Below("forgotten", "documents.json")
    """The hashes of the documents that are left out of every corpus."""
    pipelines = _Below("pipelines")
    """The folder with one folder for each pipeline."""
    logs = _Below("logs")
    """The folder of the clusters' logs, in EMR's layout."""

    def run(self, run_id: str, pipeline: str = LOCAL, project: str = PROJECT) -> Run:
        """Return the run that these three names identify together."""
        if not is_project(project):
            raise InputError(
                f"NIGHTJAR_PROJECT: {project!r} is not a valid name; use at most 63 letters, digits, '.', '_' or '-',"
                " and begin with a letter or digit"
            )
        if pipeline == "runs":
            raise InputError(
                "a pipeline cannot have the name 'runs', which is a folder in the lake; rename the pipeline"
            )
        folder = "/".join((project, encode_name(pipeline), encode_name(run_id)))
        return Run(self.uri, folder, run_id)

    def pipeline(self, name: str = DEFAULT) -> Pipeline:
        """Return the pipeline with this name."""
        return Pipeline(self.uri, name)

    def earlier_run(self, run_id: str) -> Run:
        """Return the run with this id in the earlier layout. There, runs with different ids could share a folder."""
        return Run(self.uri, re.sub(r"[^A-Za-z0-9._-]+", "-", run_id).strip("-.") or "run", run_id)

    def dataset(self, kind: str, fingerprint: str) -> str:
        """Return the folder of a dataset. `kind` is ``tokens``, ``windows`` or ``embeddings``."""
        return below(join(self.uri, "datasets", kind), fingerprint)

    def package(self, sha256: str) -> str:
        """Return the folder of a package. `sha256` is the hash of the package's content."""
        return join(self.uri, "packages", sha256)

    def wheelhouse(self, sha256: str) -> str:
        """Return the folder of a wheelhouse. `sha256` is a hash of the hashes of its wheels."""
        return join(self.uri, "wheelhouses", sha256)
