"""Run the whole pipeline on this machine: ``make demo`` or ``make demo CORPUS="my text.txt"``. Needs no AWS account.

The demo starts the embedded EMR, runs the DAG ``train_llm`` without Airflow's servers, shows the progress of its steps,
and prints the results. All output is in the folder ``lake``. The next run reuses finished datasets.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from infra.airflow.environment import environment
from infra.airflow.headless import run_dag
from infra.emr.client import connect
from infra.emr.server import embedded_emr
from infra.lake import folders, sample_corpus
from jobs.cli.output import accept_any_text
from jobs.config import STEPS
from jobs.errors import InputError, NightjarError
from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join, local_path, readable, to_uri
from jobs.metrics.columns import length_text
from jobs.results.rows import losses_of, read_curves
from jobs.results.summary import read_summary
from jobs.results.text import sparkline
from jobs.sources.listing import list_corpus
from nightjar import settings

HOME = Path(".airflow/demo")
CACHE = Path(".cache")
LAKE = Path("lake")
_LOG_TAIL_LINES = 20
_POLL_SECONDS = 0.5


def main() -> int:
    """Run the demo and return the exit code: 2 if the text cannot be used, 1 if the run failed."""
    accept_any_text()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        corpus = _given_corpus()
        with folders.owned_folder(HOME), folders.local_lake(LAKE):
            return _demo(corpus or to_uri(str(sample_corpus.provide(LAKE / folders.CORPORA, CACHE))))
    except NightjarError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        print(f"demo: {folders.refusal(error)}", file=sys.stderr)
        return InputError.exit_code
    except KeyboardInterrupt:
        print("demo: interrupted; run make demo again, which reuses the finished datasets", file=sys.stderr)
        return 130


def _given_corpus() -> str:
    """Return the corpus in the environment variable CORPUS. Return "" if the variable is not set.

    Raises:
        InputError: if the corpus cannot be read.
    """
    corpus = os.environ.get("CORPUS", "")
    return "\n".join(list_corpus(corpus, lake_uri=to_uri(str(LAKE))).places) if corpus else ""


def _demo(corpus: str) -> int:
    run = Lake(to_uri(str(LAKE))).run(time.strftime("demo-%Y%m%d-%H%M%S"), DEFAULT, settings.load().project)
    log = HOME / "logs" / f"{run.run_id}.log"
    shown = ", ".join(map(readable, corpus.splitlines()))
    print(f"corpus  {shown}\nlake    {LAKE.absolute()}\nrun     {run.run_id}\nlog     {log.absolute()}\n", flush=True)
    with embedded_emr() as endpoint:
        env = environment(HOME.absolute(), run.lake_uri, endpoint)
        with ProgressDisplay(run, endpoint):
            code = run_dag({"corpus": corpus, "preset": "demo"}, run.run_id, env, log)
    if code:
        print(f"demo: {explain_failure(run, log)}", file=sys.stderr)
        return code
    print(summary(run))
    return 0


def explain_failure(run: Run, log: Path) -> str:
    """Return why a run failed. If the run recorded no cause, return the end of Airflow's log."""
    if cause := read_summary(run).cause:
        return f"{cause}\n  the log of all tasks: {log}"
    tail = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])
    return f"the run failed; the last lines of {log}:\n{tail}"


class ProgressDisplay:
    """Prints new progress messages in a thread while a `with` block runs."""

    def __init__(self, run: Run, emr_endpoint: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._emr = connect("emr", emr_endpoint)
        self._clock = clock
        self._repeat_seconds = 5.0 if sys.stdout.isatty() else 15.0
        self._started = clock()
        self._printed: dict[str, tuple[str, float]] = {}
        """A dict from "cluster" or the name of a step to the last message about it, and the time of printing."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def show(self, source: str, message: str) -> None:
        """Print a message about `source` (the cluster or a step) if it is new.

        A message that differs from the previous one only in its numbers is printed at most every few seconds.
        """
        now, (previous, printed) = self._clock(), self._printed.get(source, ("", 0.0))
        similar = _without_numbers(message) == _without_numbers(previous)
        if message and message != previous and (not similar or now - printed >= self._repeat_seconds):
            self._printed[source] = message, now
            minutes, seconds = divmod(int(now - self._started), 60)
            print(f"[{minutes}:{seconds:02}] {source:<9} {message}", flush=True)

    def _poll(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(_POLL_SECONDS)
            clusters = self._emr.list_clusters()["Clusters"]
            self.show("cluster", ", ".join(cluster["Status"]["State"] for cluster in clusters))
            for step in STEPS:
                self.show(step, _progress_message(self._run.progress(step)))


def _progress_message(uri: str) -> str:
    """Return the progress message of a step, which is in the file `uri`. Return "" if the step has not started."""
    try:
        return str(json.loads(local_path(uri).read_text("utf-8")).get("message", ""))
    except FileNotFoundError:
        return ""


def _without_numbers(message: str) -> str:
    return re.sub(r"[\d.,:]+", "", message)


def summary(run: Run) -> str:
    """Return the results of a run of the preset `demo` in a lake on this machine."""
    stats = json.loads(local_path(join(run.stats, "stats.json")).read_text("utf-8"))
    lines = [
        "",
        "Results",
        f"  validation loss   {stats['valid_loss']:.3f} nats per token (unigram baseline: {stats['unigram_loss']:.3f})",
        f"  bits per byte     {stats['bits_per_byte']:.3f}",
        f"  accuracy          {stats['valid_accuracy']:.1%} of next tokens predicted",
        f"  model             {stats['num_parameters']:,} parameters",
        f"  training          {length_text(stats['steps']['train'])}",
        f"  training speed    {stats['tokens_per_second']:,.0f} tokens/s",
        *_curve(run),
        "  seconds           " + ", ".join(f"{step} {seconds:.0f}" for step, seconds in stats["seconds"].items()),
    ]
    reused = [step for step in STEPS if stats["steps"].get(step, {}).get("reused")]
    if reused:
        lines.append(f"  reused            {', '.join(reused)} (text, settings and code are unchanged)")
    lines += ["", "Generated text", *_samples(run), "", "Next"]
    lake = local_path(run.lake_uri)
    lines += [
        "  continue a text of yours",
        f'    .venv/bin/nightjar sample --lake "{lake}" --model {run.run_id} --prompt "My lord,"',
        "  make a file of the model for llama.cpp",
        f'    .venv/bin/nightjar export --lake "{lake}" --model {run.run_id} --format gguf --output model.gguf',
        "  read the report",
        f"    {local_path(run.report)}",
        "  train on your own text",
        "    make demo CORPUS=path/to/text.txt",
        "  choose all settings, and watch the run, in Airflow's UI",
        "    make airflow",
    ]
    return "\n".join(lines)


def _curve(run: Run) -> list[str]:
    """Return a line with the curve of the validation loss, if there are at least two values."""
    losses = losses_of(read_curves(run))
    if len(losses) < 2:
        return []
    return [f"  loss over time    {sparkline(losses)} from {losses[0]:.2f} to {losses[-1]:.2f}"]


def _samples(run: Run) -> list[str]:
    text = local_path(join(run.generate, "samples.jsonl")).read_text("utf-8")
    samples = [json.loads(line) for line in text.splitlines()[:3]]
    texts = ((sample["prompt"] + sample["text"]).replace("\n", "\n     ") for sample in samples)
    return [f"  {number}. {text}" for number, text in enumerate(texts, 1)]


if __name__ == "__main__":
    sys.exit(main())
