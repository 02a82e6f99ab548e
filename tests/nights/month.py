"""A month of nights of one pipeline: the real DAG and the real job, on an embedded EMR, without a JVM."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from infra.airflow.environment import environment
from infra.emr.control import Control
from jobs.evaluation.frozen import read_latest, read_part
from jobs.lake import store
from jobs.lake.champion import read_champion, roll_back
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join
from jobs.prices.book import Price, to_toml
from jobs.results.scores import Scores, read_scores
from jobs.results.summary import read_summary
from tests.nights.corpus import Corpus
from tests.nights.plan import Night
from tests.support.airflow import Emr, emr_process
from tests.support.growing import texts_of
from tests.support.headless import run_dag
from tests.support.no_spark import no_spark

PIPELINE = "poems"
FILE = """
corpus = "{corpus}"
preset = "tiny"

[tokenize]
tokenizer = "inherit"
vocab_size = 500

[windows]
split = "fixed"
size = 32
valid_fraction = 0.2

[model]
num_layers = 1
embedding_size = 32
hidden_size = 64
num_heads = 2
num_kv_heads = 1

[train]
init = "champion-or-scratch:poems"
epochs = 1
workers = 2
batch_size = 32
eval_every = 40

[promotion]
documents = 500

[pipeline]
schedule = "0 2 * * *"
skip_unchanged = "all"
"""
_TYPES = ("m6i.xlarge", "m6a.xlarge", "m7i.xlarge")
_CAUSE = re.compile(r"(?!verdict)[a-z_]+: ")
_LIMIT_SECONDS = 600.0


@dataclass(frozen=True)
class Done:
    """A night that is over."""

    night: Night
    run: Run
    end: str
    """promoted, kept, skipped or failed."""
    why: str
    """The reason of the decision, or the cause of the failure."""
    clusters: int
    emr_calls: int
    new_files: int | None
    bits_per_byte: float | None
    estimated: float | None
    """Instance-seconds that were expected before it had a cluster."""
    metered: float | None
    """Those that EMR metered."""
    seconds: float
    problems: tuple[str, ...]


class Month:
    """A pipeline, its text and its lake."""

    def __init__(self, folder: Path, emr: Emr, text: bytes) -> None:
        self.corpus = Corpus(folder, text)
        self.lake = Lake((folder / "lake").as_uri())
        self.pipeline = self.lake.pipeline(PIPELINE)
        self._folder, self._emr, self._control = folder, emr, Control(emr.endpoint)
        self._trained, self._validated = set[str](), set[str]()
        pipelines = folder / "pipelines"
        pipelines.mkdir()
        (pipelines / f"{PIPELINE}.toml").write_text(FILE.format(corpus=self.corpus.folder), "utf-8")
        prices = [
            Price(kind=kind, region="us-east-1", item=item, usd=0.2) for kind in ("ec2", "emr") for item in _TYPES
        ]
        prices.append(Price(kind="ebs", region="us-east-1", item="gp3", usd=0.08))
        (folder / "prices.toml").write_bytes(to_toml(prices, "invented for this test"))
        self._environ = {
            **environment(folder / "airflow", self.lake.uri, emr.endpoint),
            "NIGHTJAR_PIPELINES": str(pipelines),
            "NIGHTJAR_PRICES": str(folder / "prices.toml"),
            "NIGHTJAR_STATS_DIR": str(folder / "stats"),
            "NIGHTJAR_POLL_SECONDS": "0.5",
        }

    def play(self, number: int, night: Night) -> Done:
        """Let a night happen, and judge its end."""
        started = time.monotonic()
        night.change(self.corpus)
        form = night.form(self) if callable(night.form) else night.form
        before, _ = read_champion(self.pipeline)
        self._control.forget_calls()
        for fault in night.faults:
            self._control.fault(**fault)
        code, log, run, problems = self._run(f"night-{number:02}", form, night)
        self._control.clear()
        champion, _ = read_champion(self.pipeline)
        decision = _read(run.promotion)
        if run_is_skipped := code == 0 and decision is None:
            end, why = "skipped", log
        elif code != 0 or decision is None:
            end, why = "failed", next(causes(log), "")
        else:
            end, why = ("promoted" if decision["promoted"] else "kept"), decision["why"]
        stats = (_read(join(run.stats, "stats.json")) or {}).get("steps", {})
        emr_calls = sum(each["count"] for each in self._control.calls() if each["service"] == "emr")
        states = self._emr.clusters(run.run_id)
        new_files = stats.get("tokenize", {}).get("new_sources")
        problems += _judge(night, end, why)
        if set(states) - {"TERMINATED", "TERMINATED_WITH_ERRORS"}:
            problems.append(f"its clusters are {states}")
        if run_is_skipped and (emr_calls or store.list_files(run.uri)):
            problems.append(f"it made {emr_calls} calls to EMR, or left files")
        if night.needs_cluster and len(states) != night.num_clusters:
            problems.append(f"it had {len(states)} clusters instead of {night.num_clusters}")
        if night.new_files is not None and end != "failed" and new_files != night.new_files:
            problems.append(f"{new_files} files were tokenized instead of {night.new_files}")
        has_moved = (champion and champion.model) != (before and before.model)
        if has_moved != (end == "promoted") and not night.during_training:
            problems.append("the champion does not fit the decision")
        problems += self._find_leaks(run)
        summary = read_summary(run) if states else None
        done = Done(
            night,
            run,
            end,
            "" if run_is_skipped else why,
            len(states),
            emr_calls,
            new_files,
            stats.get("score", {}).get("frozen_bits_per_byte"),
            (_read(run.estimate) or {}).get("instance_seconds"),
            summary.instance_seconds if summary else None,
            time.monotonic() - started,
            tuple(problems),
        )
        sys.stderr.write(f"night {number}: {night.name}: {end} in {done.seconds:.0f} s {' '.join(problems)}\n")
        return done

    def read_log(self, run: Run) -> str:
        """Return what Airflow and the tasks of a run have printed."""
        return (self._folder / f"{run.run_id}.log").read_text("utf-8", errors="replace")

    def compare_starts(self) -> tuple[float, int, int]:
        """Train from scratch on the text of today, and go on from the champion; compare how long both need.

        Returns:
            The last validation loss from scratch, and the tokens until it was reached from scratch and from the
            champion.
        """
        curves = []
        for name, init in (("scratch", None), ("warm", f"champion:{PIPELINE}")):
            form = {"promotion.enabled": False, "train.init": init, "train.epochs": 2}
            code, log, run, _ = self._run(name, form)
            if code != 0:
                raise RuntimeError(f"the run {name} failed: {log[-3000:]}")
            rows = csv.DictReader(io.StringIO(store.read_bytes(join(run.stats, "metrics.csv")).decode()))
            curves.append([(float(row["valid_loss"]), int(row["tokens"])) for row in rows if row["valid_loss"]])
        loss, tokens = curves[0][-1]
        return loss, tokens, next((at for found, at in curves[1] if found <= loss), tokens)

    def roll_back(self) -> None:
        """Make the champion before the present one the champion."""
        roll_back(self.pipeline, "a person", "while a night runs")

    def evaluation_set(self) -> list[str]:
        """Return the texts of the evaluation set."""
        frozen = read_latest(self.pipeline)
        return [document.text for entry in frozen.parts for document in read_part(frozen.uri, entry)]

    def last_scores(self, dones: list[Done]) -> Scores | None:
        """Return the scores of the last night whose model was compared with a champion on all documents."""
        for done in reversed(dones):
            scores = read_scores(done.run)
            if scores and scores.champion and not scores.not_compared and done.night.expects != "refused":
                return scores
        return None

    def _run(self, run_id: str, form: Mapping[str, Any], night: Night | None = None) -> tuple[int, str, Run, list[str]]:
        run = self.lake.run(run_id, PIPELINE)
        log = self._folder / f"{run_id}.log"
        problems: list[str] = []
        codes: list[int] = []
        dag = Thread(target=lambda: codes.append(run_dag(form, run_id, self._environ, log, PIPELINE)))
        dag.start()
        if night and night.during_training:
            while dag.is_alive() and not store.exists(run.progress("train")):
                time.sleep(0.05)
            try:
                night.during_training(self)
            except Exception as error:  # noqa: BLE001 - whatever went wrong is shown in the table
                problems.append(f"{type(error).__name__}: {error}")
        dag.join(_LIMIT_SECONDS)
        if not codes:
            raise RuntimeError(f"{run_id} goes on after {_LIMIT_SECONDS:g} s:\n{self.read_log(run)[-3000:]}")
        return codes[0], self.read_log(run), run, problems

    def _find_leaks(self, run: Run) -> list[str]:
        """Return a problem if a text was trained on in one night and validated on in another, or both in one."""
        if "windows" not in (_read(run.datasets) or {}):
            return []
        self._trained |= texts_of(run, "train")
        self._validated |= texts_of(run, "valid")
        both = {text for text in self._trained & self._validated if "<unk>" not in text}  # these are not told apart
        return [f"{len(both)} texts are on both sides, such as {min(both)[:60]!r}"] if both else []


def causes(log: str) -> Iterator[str]:
    """Yield the causes of a failure in what a run has printed, each with its task; the verdict only counts them."""
    for line in log.splitlines():
        if _CAUSE.match(line):
            yield line


def _judge(night: Night, end: str, why: str) -> list[str]:
    fits = {"trained": ("promoted", "kept"), "refused": ("kept", "failed")}.get(night.expects, (night.expects,))
    problems = [] if end in fits else [f"it is {end}, and {night.expects} was expected"]
    if night.says and not re.search(night.says, why):
        problems.append(f"it does not say {night.says!r}")
    return problems


def _read(uri: str) -> Any:
    try:
        return store.read_json(uri)
    except FileNotFoundError:
        return None


@contextmanager
def month(folder: Path, text: bytes) -> Iterator[Month]:
    """Start an embedded EMR whose steps need no Spark, for the duration of the block."""
    os.environ.pop("NIGHTJAR_PIPELINES", None)
    (folder / "emr").mkdir()
    with emr_process(folder / "emr", no_spark(folder / "no-spark", "--engine inline")) as emr:
        yield Month(folder, emr, text)
