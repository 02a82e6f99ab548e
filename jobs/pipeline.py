"""Start a run, and run its steps, one or all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import psutil

from jobs.config import Config, resolve
from jobs.config.prompts import read_prompts
from jobs.engine.base import Engine
from jobs.errors import InputError, NightjarError
from jobs.lake import store
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import to_uri
from jobs.report.stats import write_step
from jobs.sources.listing import list_corpus
from jobs.sources.names import to_corpus

log = logging.getLogger(__name__)


class Progress:
    """The progress of one step, as log lines and as a small object in the run's folder; called with each message."""

    def __init__(self, run: Run, step: str, every_seconds: float = 1.0) -> None:
        self._uri = run.progress(step)
        self._step = step
        self._every_seconds = every_seconds
        self._last = float("-inf")

    def __call__(self, message: str) -> None:
        """Log `message`; write it to the run's folder unless the last one is younger than `every_seconds`."""
        log.info("%s: %s", self._step, message)
        now = time.monotonic()
        if now - self._last >= self._every_seconds:
            self._last = now
            store.write_json(self._uri, {"step": self._step, "message": message, "time": time.time()})


def start_run(lake_path: str, run_id: str, corpus: str, preset: str, overrides: Mapping[str, Any]) -> Run:
    """Resolve the configuration of a run and write it into the run's folder, unless it is there.

    Raises:
        InputError: if the configuration is wrong, the corpus has no text, there is no prompt, the lake cannot be
            written to, or the run exists with another configuration.
    """
    config = resolve(to_corpus(corpus), preset, overrides)
    lake = Lake(to_uri(lake_path))
    list_corpus(config.corpus, lake_uri=lake.uri)
    read_prompts(config.generate, store.read_bytes)
    run = lake.run(run_id)
    store.check_writable(lake.uri)
    if not store.publish(run.config, config.to_json().encode()) and read_config(run) != config:
        raise InputError(f"{run.uri}: this run exists with another configuration; choose another --run-id")
    return run


def read_config(run: Run) -> Config:
    """Read the configuration in the run's folder. None, or one that is not valid, is an `InputError`."""
    try:
        return Config.from_json(store.read_bytes(run.config).decode(), run.config)
    except FileNotFoundError:
        raise InputError(f"{run.config}: no such configuration; check --config, or --run and --lake") from None


def run_step(step: str, run: Run, config: Config, engine: Engine) -> dict[str, Any]:
    """Run one step and return its statistics, which are also written to the run's folder if the step fails."""
    function: Callable[..., dict[str, Any]] = import_module(f"jobs.steps.{step}").run
    process = psutil.Process()
    process.cpu_percent()  # starts the measurement
    started, earlier = time.time(), {(row["stage"], row["attempt"]) for row in engine.stages()}
    stats: dict[str, Any] = {}
    log.info("%s: started, run %s, engine %s", step, run.run_id, engine.name)
    try:
        stats = {"error": None, **function(run, config, engine, Progress(run, step))}
    except Exception as error:
        stats = {"error": str(error) if isinstance(error, NightjarError) else f"{type(error).__name__}: {error}"}
        raise
    finally:
        stats |= {
            "engine": engine.name,
            "started": started,
            "seconds": time.time() - started,
            "driver_resident_bytes": process.memory_info().rss,
            "driver_cpu_load": process.cpu_percent() / 100,
            "stages": [row for row in engine.stages() if (row["stage"], row["attempt"]) not in earlier],
            "executors": engine.executors(),
        }
        write_step(run, step, stats)
    log.info("%s: done in %.1f s", step, stats["seconds"])
    return stats


def run_all(
    run: Run, engine: Engine, around: Callable[[str], AbstractContextManager[object]] = nullcontext
) -> dict[str, dict[str, Any]]:
    """Run all steps of the run's configuration, each in the context `around(step)`; return the statistics of each."""
    config, stats = read_config(run), {}
    for step in config.steps:
        with around(step):
            stats[step] = run_step(step, run, config, engine)
    return stats
