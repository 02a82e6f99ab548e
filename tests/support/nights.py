"""A real Airflow with four runs of the real job: two that are done, one that failed, and one that goes on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.airflow.environment import PROJECT_ROOT
from jobs.lake import store
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Run
from tests.support.live import User, live_user
from tests.support.pages import Runs
from tests.support.waiting import until

LIMIT_SECONDS = 900.0
SHORT_TEXT = "Too short a text for a window."


@dataclass(frozen=True)
class Nights:
    """A user of a running Airflow, and the runs of its lake."""

    user: User
    runs: Runs


@contextmanager
def nights(folder: Path, corpus: Path, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Nights]:
    """Run Airflow, and trigger runs as its trigger form does.

    Args:
        folder: A folder for the lake, and for Airflow's files.
        corpus: The text to train on.
        first: The settings of the run that is done first. The failed run and the one that goes on have them as well.
        second: The settings of the second one, beside those of the first.
    """
    real = {"NIGHTJAR_PACKAGE_ROOT": str(PROJECT_ROOT), "NIGHTJAR_POLL_SECONDS": "0.5"}
    with live_user(folder, str(corpus), extra_env=real) as user:

        def trigger(run_id: str, **conf: Any) -> Run:
            user.start(run_id, {"corpus": user.corpus, **first, **conf})
            return user.lake.run(run_id, DEFAULT)

        def ended(run_id: str, expected: str, **conf: Any) -> Run:
            run = trigger(run_id, **conf)
            assert user.wait(run, LIMIT_SECONDS) == expected, user.states(run)
            return run

        done = ended("baseline", "success"), ended("higher-learning-rate", "success", **second)
        short = folder / "short.txt"
        short.write_text(SHORT_TEXT)
        failed = ended("text-too-short", "failed", corpus=str(short))
        live = trigger(
            "in-progress", **{"train.epochs": 1000, "train.max_tokens": 1_000_000_000, "train.max_seconds": 3600}
        )
        until(lambda: store.list_files(live.metrics_parts))
        yield Nights(user, Runs(*done, failed, live))
