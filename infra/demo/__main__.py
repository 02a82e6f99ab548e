"""The whole pipeline on this machine, without an AWS account: ``make demo`` or ``make demo CORPUS="my text.txt"``.

Starts the embedded EMR, runs the DAG ``train_llm`` without Airflow's servers, shows how far it is, and ends with what
came out. Everything that is made lies in ``lake/``; finished datasets are used again by the next run.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import boto3

from infra.airflow.environment import environment
from infra.airflow.headless import run_dag
from infra.demo.sample_corpus import shakespeare
from infra.emr.server import embedded_emr
from infra.emr.settings import Settings
from jobs.errors import InputError, NightjarError
from jobs.lake.layout import STEPS, Lake, Run
from jobs.lake.uri import join, local_path, to_uri

HOME = Path(".airflow/demo")
LAKE = Path("lake")
PRESET = "demo"


def main() -> int:
    """Run the demo; return the exit code: 2 if the text cannot be used, 1 if the run failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return _demo()
    except NightjarError as error:
        sys.stderr.write(f"demo: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted; finished datasets are kept and used by the next run\n")
        return 130


def _demo() -> int:
    corpus = Path(os.environ.get("CORPUS") or shakespeare(Path(".cache"))).absolute()
    if not corpus.exists():
        raise InputError(f"{corpus}: no such file or folder; give a text: make demo CORPUS=path/to/text.txt")
    run = Lake(to_uri(str(LAKE))).run(time.strftime("demo-%Y%m%d-%H%M%S"))
    log = HOME / "logs" / f"{run.run_id}.log"
    _say(f"text  {corpus}\nlake  {LAKE.absolute()}\nrun   {run.run_id}\nlog   {log}\n")
    with embedded_emr(Settings()) as endpoint:
        env = environment(HOME.absolute(), run.lake_uri, endpoint)
        with Watch(run, endpoint):
            code = run_dag({"corpus": to_uri(str(corpus)), "preset": PRESET}, run.run_id, env, log)
    if code:
        sys.stderr.write(f"demo: the run failed; the end of {log}:\n{_end_of(log)}\n")
        return code
    _say(summary(run))
    return 0


class Watch:
    """Shows on stdout, while the `with` block runs, the cluster's state and how far the steps of a run are."""

    def __init__(self, run: Run, endpoint: str, every_seconds: float = 0.5) -> None:
        self._run = run
        self._endpoint = endpoint
        self._every_seconds = every_seconds
        self._started = time.monotonic()
        self._said: dict[str, tuple[str, float]] = {}
        self._repeat_seconds = 5.0 if sys.stdout.isatty() else 15.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(self._every_seconds)
            self._tell("cluster", ", ".join(_cluster_states(self._endpoint)))
            for step in STEPS:
                self._tell(step, read_json(self._run.progress(step)).get("message", ""))

    def _tell(self, what: str, message: str) -> None:
        """Say something new at once, the same with other numbers now and then."""
        now, (before, said) = time.monotonic(), self._said.get(what, ("", 0.0))
        same = _without_numbers(message) == _without_numbers(before)
        if message and message != before and (not same or now - said >= self._repeat_seconds):
            self._said[what] = message, now
            minutes, seconds = divmod(int(now - self._started), 60)
            _say(f"[{minutes}:{seconds:02}] {what:<9} {message}")


def summary(run: Run) -> str:
    """What came out of a run, for reading: losses against the baseline, speed, samples of text, paths."""
    stats = read_json(join(run.stats, "stats.json"))
    steps = stats["steps"]
    baseline, unit = (
        ("unigram", "nats per token") if "unigram_loss" in stats else ("mean_vector", "of squared distance")
    )
    baseline_loss = stats[f"{baseline}_loss"]
    lines = [
        "",
        f"validation loss   {stats['valid_loss']:.3f} {unit}; the {baseline} baseline has"
        f" {baseline_loss:.3f}, so the model is {baseline_loss - stats['valid_loss']:.3f} better",
        *([f"bits per byte     {stats['bits_per_byte']:.3f}"] if "bits_per_byte" in stats else []),
        f"accuracy          {stats['valid_accuracy']:.1%} of next tokens",
        f"model             {stats['num_parameters']:,} parameters, {stats['tokens_per_second']:,.0f} tokens/s",
        "seconds           " + ", ".join(f"{step} {seconds:.0f}" for step, seconds in stats["seconds"].items()),
    ]
    reused = [step for step in STEPS if steps.get(step, {}).get("reused")]
    if reused:
        lines.append(f"used again        {' and '.join(reused)}: text, settings and code are unchanged")
    lines += ["", *_samples(run), ""]
    lines += [f"statistics        {local_path(run.stats)}", f"model folder      {local_path(run.model)}"]
    return "\n".join([*lines, f"generated text    {local_path(join(run.generate, 'generated.txt'))}"])


def _samples(run: Run, count: int = 3) -> list[str]:
    text = local_path(join(run.generate, "samples.jsonl")).read_text("utf-8")
    samples = [json.loads(line) for line in text.splitlines()[:count]]
    return [f"  {number}. {sample['prompt']}{sample['text']}" for number, sample in enumerate(samples, 1)]


def _without_numbers(message: str) -> str:
    return re.sub(r"[\d.,:]+", "", message)


def read_json(uri: str) -> dict[str, Any]:
    """The content of a JSON file of the local lake; empty if it is not there yet."""
    try:
        content: dict[str, Any] = json.loads(local_path(uri).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return content


def _cluster_states(endpoint: str) -> list[str]:
    emr = boto3.client(
        "emr",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - the embedded EMR asks for a key, any key
    )
    return [cluster["Status"]["State"] for cluster in emr.list_clusters()["Clusters"]]


def _end_of(log: Path, num_lines: int = 20) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-num_lines:])


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
