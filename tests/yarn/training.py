"""The step train of a run, as the DAG sends it, for the tests on a real YARN."""

from dataclasses import dataclass
from typing import Any

from jobs.errors import NightjarError
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.training.checkpoint import complete_checkpoints
from nightjar.emr.outcome import explain_failure
from nightjar.emr.requests import add_step
from nightjar.packaging.build import build
from tests.support.handmade import make_datasets, make_run, train_tokenizer
from tests.support.waiting import until
from tests.yarn.conftest import LAKE, Yarn

PACKAGE = f"{LAKE.uri}/package"
WORKERS = {"train__workers": 2, "spark__executors": 2, "spark__executor_cores": 1, "spark__driver_memory": "600m"}
ONE_FITS = {"spark__executor_memory": "1g", "spark__executor_overhead": "5g"}
"""A node has room for one executor, beside the application master or without it."""
ALL_FIT = {"spark__executor_memory": "600m", "spark__executor_overhead": "2g"}
"""A node has room for both executors and the application master."""


def fill_lake() -> None:
    """Write datasets and the package of the job to the lake."""
    make_datasets(LAKE, train_tokenizer())
    for name, data in build().files.items():
        store.write_bytes(f"{PACKAGE}/{name}", data)


@dataclass
class Training:
    """The step train of a run, on a cluster."""

    yarn: Yarn
    cluster: str
    step: str
    run: Run

    def printed(self) -> str:
        return self.yarn.printed(self.cluster, self.step)

    def until_under_way(self) -> None:
        """Wait until the training has a checkpoint."""

        def is_under_way() -> bool:
            state = self.yarn.step(self.cluster, self.step)["Status"]["State"]
            assert state in ("PENDING", "RUNNING"), self.printed()[-6000:]
            return len(complete_checkpoints(self.run)) > 0

        until(is_under_way, 150, "a checkpoint")

    def until_said(self, text: str, seconds: float = 120) -> None:
        until(lambda: text in self.printed(), seconds, f"{text!r} in the driver's log")

    def completed(self, seconds: float = 300) -> dict[str, Any]:
        """Wait for the end of the step, which must succeed, and return its statistics."""
        state, logs = self.yarn.wait(self.cluster, self.step, seconds)
        assert state == "COMPLETED", logs[-8000:]
        stats = store.read_json(self.run.step_stats("train"))
        assert stats["valid_loss"] < stats["unigram_loss"]
        return stats

    def failed(self, seconds: float = 300) -> NightjarError:
        """Wait for the end of the step, which must fail, and return the error of Airflow's task."""
        state, logs = self.yarn.wait(self.cluster, self.step, seconds)
        assert state == "FAILED", logs[-8000:]
        described = self.yarn.step(self.cluster, self.step)
        failure = explain_failure(self.yarn.api, self.yarn.store, LAKE, self.cluster, described, 0)
        return failure.error("train", self.step)


def start(yarn: Yarn, cluster: str, name: str, conf: tuple[str, ...] = (), **settings: Any) -> Training:
    """Send the step train of a new run; `conf` overrides settings of its command."""
    long = {"train__epochs": 100, "train__checkpoint_every": 20, "train__eval_every": 5000}
    run, config = make_run(LAKE, name, **{**long, **WORKERS, **ALL_FIT, **settings})
    args = add_step(cluster, "train", config, run, PACKAGE)["Steps"][0]["HadoopJarStep"]["Args"]
    place = args.index("--py-files")
    given = [word for each in conf for word in ("--conf", each)]
    return Training(yarn, cluster, yarn.submit(cluster, *args[:place], *given, *args[place:]), run)
