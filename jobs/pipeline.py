"""Starts a run, and executes one or all of its pipeline steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any, Literal

import psutil

from jobs.config import Config, of_run, resolve
from jobs.config.effects import Facts, explain_without_effect
from jobs.engine.base import Engine
from jobs.errors import InputError, NightjarError
from jobs.lake import store
from jobs.lake.layout import Pipeline, Run
from jobs.lake.models import decide_used
from jobs.sources.earlier import inherits
from jobs.sources.fixed_split import decided_seed
from jobs.sources.listing import list_corpus
from jobs.sources.names import to_corpus
from jobs.statistics.writer import write_step
from jobs.training.inputs import check_training_inputs

log = logging.getLogger(__name__)


class Progress:
    """Reports the progress of one step. Call it with each message.

    Each message is logged, and the latest message is kept in a small file in the run's folder.
    """

    def __init__(self, run: Run, step: str, every_seconds: float = 1.0) -> None:
        self._uri = run.progress(step)
        self._step = step
        self._every_seconds = every_seconds
        self._last = float("-inf")

    def __call__(self, message: str) -> None:
        """Log `message`. Also write it to the run's folder, but at most once every `every_seconds` seconds."""
        log.info("%s: %s", self._step, message)
        now = time.monotonic()
        if now - self._last >= self._every_seconds:
            self._last = now
            store.write_json(self._uri, {"step": self._step, "message": message, "time": time.time()})


def start_run(
    run: Run,
    corpus: str,
    preset: str,
    overrides: Mapping[str, Any],
    places: Mapping[str, str] | None = None,
    engine: Literal["inline", "spark"] | None = None,
) -> Run:
    """Resolve the configuration of a run, and write it into the run's folder if the run does not exist yet.

    An existing run keeps its settings. Only the settings of the deployment are updated (see `jobs.config.of_run`).

    `places` maps a setting to the file or environment variable that sets it. Error messages name this place. For each
    setting that was set outside the preset but has no effect, a warning is logged.

    Raises:
        InputError: if the configuration is wrong; if the corpus is missing or has no text; if a file or model that the
            settings name is missing or does not fit; if the lake cannot be written to; or if the run exists with
            another configuration.
    """
    config = resolve(to_corpus(corpus) if corpus else "", preset, overrides, places)
    if config.reads_text and not corpus:
        purpose = "train on" if config.trains else "evaluate the model on"
        raise InputError(
            f"no text to {purpose}; name it by --corpus, or by the key corpus in the file of --config-file"
        )
    begin_run(run, config, engine)
    return run


def begin_run(run: Run, config: Config, engine: Literal["inline", "spark"] | None = None) -> None:
    """Check a resolved configuration, and write it into the run's folder if the run does not exist yet.

    Raise the same errors as `start_run`. Log a warning for each setting in `config.chosen` that has no effect.
    """
    formats = list_corpus(config.corpus, lake_uri=run.lake_uri).formats if config.reads_text else None
    check_training_inputs(run, config)
    store.check_writable(run.lake_uri)
    config = of_run.claim(run, config)
    if config.use.model is not None:
        decide_used(run, config.use.model)
    warn_without_effect(config, config.chosen, _facts(run, config, engine=engine, formats=formats))


def warn_without_effect(config: Config, keys: Iterable[str], facts: Facts) -> None:
    """Log a warning for each of the settings `keys` that has no effect."""
    for line in explain_without_effect(config, keys, facts):
        log.warning("%s", line)


def warn_inert_in_step(step: str, run: Run, config: Config) -> None:
    """Log a warning for each setting of a step that was set outside the preset and has no effect."""
    sections = (step, "model") if step == "train" else (step,)
    chosen = [key for key in config.chosen if key.partition(".")[0] in sections]
    if chosen:
        warn_without_effect(config, chosen, _facts(run, config, steps=(step,)))


def _facts(run: Run, config: Config, **known: Any) -> Facts:
    """Return the facts about a run for `jobs.config.effects`: those read from the lake, and those in `known`."""
    seed = decided_seed(config, Pipeline.of(run))
    return Facts(inherits=inherits(run, config), split_seed=seed, **known)


def read_config(run: Run) -> Config:
    """Read the configuration in the run's folder. Raise InputError if it is missing or not valid."""
    try:
        return of_run.read_config(run)
    except FileNotFoundError:
        raise InputError(f"{run.config}: no such configuration; check --config, or --run and --lake") from None


def run_step(step: str, run: Run, config: Config, engine: Engine, *, is_checked: bool = False) -> dict[str, Any]:
    """Run one step and return its statistics. They are written to the run's folder even if the step fails.

    The inputs of training, such as the model to start from, are checked before tokenize and before windows. If
    `is_checked` is true, `start_run` has just checked them, and the check before tokenize is skipped. The check before
    windows also covers the vocabulary, which is known by then.
    """
    function: Callable[..., dict[str, Any]] = import_module(f"jobs.steps.{step}").run
    measured = Measurement(engine)
    stats: dict[str, Any] = {}
    log.info("%s: started, run %s, engine %s", step, run.run_id, engine.name)
    try:
        if step == "windows" or (step == "tokenize" and not is_checked):
            check_training_inputs(run, config)
        stats = {"error": None, **function(run, config, engine, Progress(run, step))}
    except BaseException as error:
        stats = {"error": str(error) if isinstance(error, NightjarError) else f"{type(error).__name__}: {error}"}
        raise
    finally:
        stats |= {"engine": engine.name, "started": measured.started, "seconds": time.time() - measured.started}
        _write_statistics(run, step, stats, measured)
    log.info("%s: done in %.1f s", step, stats["seconds"])
    return stats


class Measurement:
    """Measures the memory and processor time of the driver process, and the Spark stages and executors, during a step.

    The measurement starts when the object is created.
    """

    def __init__(self, engine: Engine) -> None:
        self.started = time.time()
        self._engine = engine
        self._process = psutil.Process()
        self._process.cpu_percent()  # starts the measurement
        self._earlier = {(row["stage"], row["attempt"]) for row in engine.stages()}

    def statistics(self) -> dict[str, Any]:
        """Return the statistics that all steps have in common."""
        return {
            "driver_resident_bytes": self._process.memory_info().rss,
            "driver_cpu_load": self._process.cpu_percent() / 100,
            "stages": [row for row in self._engine.stages() if (row["stage"], row["attempt"]) not in self._earlier],
            "executors": self._engine.executors(),
        }


def _write_statistics(run: Run, step: str, stats: dict[str, Any], measured: Measurement) -> None:
    """Add the statistics of `measured` to `stats`, and write them to the run's folder."""
    with _tolerated(step):
        stats |= measured.statistics()
    with _tolerated(step):
        write_step(run, step, stats)


@contextmanager
def _tolerated(step: str) -> Iterator[None]:
    """Log a warning if the block raises an error. A step must not fail because its statistics are incomplete."""
    try:
        yield
    except Exception as error:
        log.warning("%s: its statistics are incomplete (%s: %s)", step, type(error).__name__, error)
        log.debug("traceback", exc_info=True)


def run_all(
    run: Run, engine: Engine, around: Callable[[str], AbstractContextManager[object]] = nullcontext
) -> dict[str, dict[str, Any]]:
    """Run all steps of a run, each in the context `around(step)`. Return the statistics by step."""
    config, stats = read_config(run), {}
    for step in config.steps:
        with around(step):
            stats[step] = run_step(step, run, config, engine, is_checked=step == "tokenize")
    return stats
