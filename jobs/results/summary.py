"""The summary of a run: its state, its configuration in short and its results, read from a few small files.

A missing or damaged file leaves gaps in the summary and raises no error, since a list of runs shows every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from time import time
from typing import Any

from jobs.config import EVALUATE, SCORE, STEPS
from jobs.config.sections.model import EMBED
from jobs.errors import DamagedError, NightjarError, shorten
from jobs.lake.layout import FIRST_CLUSTER, Run
from jobs.lake.lock import is_held
from jobs.lake.outcome import Outcome, parse_outcome
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import as_number
from jobs.lake.uri import base_name, join, relative_name
from jobs.metrics.columns import BASELINE_LOSSES
from jobs.prices.bill import Bill, make_bill
from jobs.prices.book import shown_prices
from jobs.prices.metering import cluster_uses, read_cluster_uses, read_records
from jobs.results.in_progress import is_under_way, seconds_of
from jobs.results.text import duration, one_line, with_unit

MOST_CHARACTERS = 300
"""Maximum length of a text in a summary, in characters. A corpus may have thousands of places."""


class Status(StrEnum):
    """The state of a run, as the lake shows it."""

    DONE = "done"
    FAILED = "failed"
    RUNNING = "running"
    """A program holds the run's lock, or the run's DAG is between two tasks or waits for a cluster."""
    UNFINISHED = "unfinished"
    """No program works on the run: it was stopped from outside, or has had no sign of progress for some minutes."""


@dataclass(frozen=True, slots=True)
class StepSummary:
    """One pipeline step of a run."""

    name: str
    status: Status
    seconds: float | None = None
    cause: str | None = None
    """Why the step failed, in one line."""
    progress: str | None = None
    """The last progress message of a step that is not done."""
    instance_seconds: float | None = None
    """The instance time of all attempts at the step, in seconds."""
    cost_usd: float | None = None

    @property
    def state(self) -> str:
        """The state as a word for people: `status`, or "not started" for a step that never began."""
        return "not started" if self.status is Status.UNFINISHED and self.progress is None else str(self.status)


@dataclass(frozen=True, slots=True)
class Summary:
    """One run, as a list of runs shows it. A value that is not known, or not known yet, is None."""

    folder: str
    run_id: str
    project: str
    pipeline: str
    status: Status
    steps: tuple[StepSummary, ...] = ()
    preset: str | None = None
    corpus: str | None = None
    """The corpus, if the run reads one."""
    used_model: str | None = None
    """The name of the model that the run uses instead of training one."""
    started: float | None = None
    """When the first step started, in seconds since 1970. For a run in progress, when its configuration was written."""
    seconds: float | None = None
    """Duration of all ended steps together, in seconds. For a run in progress, the time since `started`."""
    num_parameters: int | None = None
    valid_loss: float | None = None
    baseline_loss: float | None = None
    """The loss of the simplest baseline, in the unit of `valid_loss`."""
    baseline: str | None = None
    """The name of the baseline whose loss is `baseline_loss`, such as "unigram"."""
    bits_per_byte: float | None = None
    """Bits per byte of the validation text, or of the text on which the run evaluates a model."""
    valid_accuracy: float | None = None
    tokens_per_second: float | None = None
    cause: str | None = None
    """Why the run failed, in one line."""
    instances: tuple[tuple[str, float], ...] = ()
    """The instance time of the run's clusters: pairs of a type of instance, with its market, and its seconds."""
    cost_usd: float | None = None
    """The cost of these instances in USD; 0 on the embedded EMR."""
    cost_note: str | None = None
    """A note about the cost: that it is an upper bound, that it is not final, or why it is zero or not known."""
    is_embedded: bool = False
    """Whether the run's clusters were those of the embedded EMR."""
    versions: tuple[tuple[int, float] | None, ...] = field(default=(), compare=False)
    """Size and modification time of each of the `watched_files` when the summary was read; None for a missing one."""

    @property
    def instance_seconds(self) -> float | None:
        """The instance time of the run's clusters in seconds."""
        return sum(seconds for _, seconds in self.instances) if self.instances else None


def watched_files(run: Run) -> tuple[str, ...]:
    """Return the files that show whether a run has changed: if its summary changes, one of these files changes, too."""
    return join(run.stats, "stats.json"), run.lock, join(run.clusters, FIRST_CLUSTER)


def versions_of(run: Run, store: Store) -> tuple[tuple[int, float] | None, ...]:
    """Return the size and the modification time of each file of `watched_files`; None for a missing file."""
    found = (store.info(uri) for uri in watched_files(run))
    return tuple(None if info is None else (info.size, info.modified_at) for info in found)


def read_summary(run: Run, store: Store = ENVIRONMENT, *, is_over: bool = False) -> Summary:
    """Return the summary of a run. With `is_over`, the run counts as over even if its lock is still held."""
    versions = versions_of(run, store)  # first, so that a later change is noticed
    config, stats = read_values(run.config, store), read_values(watched_files(run)[0], store)
    is_held = not is_over and _is_held(run, store)
    steps = _steps(run, store, config, _mapping(stats.get("steps")), is_held=is_held)
    status = Status.RUNNING if is_held else _status(steps)
    is_open = status in (Status.RUNNING, Status.UNFINISHED)
    written = _written(run, store) if is_open or not stats.get("steps") else None
    clusters = read_records(run, store) if versions[-1] else []
    cause = next((f"{step.name}: {step.cause}" for step in steps if step.cause), None)
    failure = _mapping(stats.get("failure"))
    failed_at = (as_number(failure.get("time")) or 0.0) if failure else None
    signs = (written, *(each[1] for each in versions if each))
    if status is Status.UNFINISHED and not is_over and is_under_way(run, clusters, signs, time(), failed_at):
        status = Status.RUNNING
    elif failure and status is Status.UNFINISHED:
        status, cause = Status.FAILED, _text(failure.get("cause"))
    is_running = status is Status.RUNNING
    uses = cluster_uses(clusters, config, is_running=is_running)
    bill = make_bill(uses, lambda: shown_prices(store)) if uses else None
    steps = tuple(_with_charge(step, bill) for step in steps) if bill else steps
    baseline = next((name for name in BASELINE_LOSSES if as_number(stats.get(name)) is not None), None)
    start = _start_of(stats, written, is_running=is_running) or failed_at
    ended = [as_number(each) for each in _mapping(stats.get("seconds")).values()]
    seconds = sum(each for each in ended if each is not None) if ended else None
    parameters = as_number(stats.get("num_parameters"))
    return Summary(
        folder=run.folder,
        run_id=run.run_id,
        project=run.project,
        pipeline=run.pipeline,
        status=status,
        steps=steps,
        preset=_text(config.get("preset")),
        corpus=_text(config.get("corpus")) or None,
        used_model=_text(_mapping(config.get("use")).get("model")),
        started=start,
        seconds=time() - start if is_running and start is not None else seconds,
        num_parameters=None if parameters is None else int(parameters),
        valid_loss=as_number(stats.get("valid_loss")),
        baseline_loss=as_number(stats.get(baseline)) if baseline else None,
        baseline=BASELINE_LOSSES[baseline] if baseline else None,
        bits_per_byte=as_number(stats.get("bits_per_byte", stats.get("text_bits_per_byte"))),
        valid_accuracy=as_number(stats.get("valid_accuracy")),
        tokens_per_second=as_number(stats.get("tokens_per_second")),
        cause=cause,
        instances=tuple((name, charge.seconds) for name, charge in bill.instances.items()) if bill else (),
        cost_usd=bill.cost_usd if bill else None,
        cost_note=_cost_note(bill) if bill else None,
        is_embedded=bill is not None and bill.is_embedded,
        versions=versions,
    )


def read_values(uri: str, store: Store) -> dict[str, Any]:
    """Return the object in a JSON file. Return an empty object if the file is missing or cannot be read."""
    with suppress(OSError, NightjarError):
        return read_object(uri, store)
    return {}


def read_object(uri: str, store: Store) -> dict[str, Any]:
    """Return the object in a JSON file, or an empty one if the file is missing. Raise DamagedError if it is damaged."""
    try:
        found = store.read_json(uri)
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict):
        raise DamagedError(f"{uri}: not a JSON object, got {shorten(found)}; delete it and run the step again")
    return found


def record_failure(run: Run, cause: str, store: Store) -> None:
    """Write the reason for a run's failure into its statistics. The next step that ends removes the reason.

    This is for failures that no step has recorded.
    """
    record_statistics(run, {"failure": {"cause": cause, "time": time()}}, store)


def record_statistics(run: Run, values: Mapping[str, Any], store: Store) -> None:
    """Add `values`, which no pipeline step writes, to a run's statistics. The next step that ends removes them."""
    uri = join(run.stats, "stats.json")
    store.write_json(uri, {**read_object(uri, store), **values})


def planned_steps(config: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the steps of a run: those that the stored `config` needs (see `Config.steps`), and those in `found`."""
    use = _mapping(config.get("use"))
    scores = (
        _mapping(config.get("promotion")).get("enabled") and _mapping(config.get("windows")).get("split") == "fixed"
    )
    needed = {
        EMBED: _mapping(config.get("train")).get("embeddings") == EMBED,
        SCORE: bool(scores),
        EVALUATE: False,
    }
    if use.get("model") is not None:
        needed = {step: step == use.get("task") for step in STEPS}
    return tuple(step for step in STEPS if needed.get(step, True) or step in found)


def latest_outcomes(run: Run, store: Store) -> dict[str, Outcome]:
    """Return a dict from pipeline steps to their last outcomes. Leave out steps whose outcome is missing or damaged."""
    folder, latest = join(run.uri, "steps"), dict[str, tuple[int, str]]()
    for file in store.list_files(folder):
        step, _, rest = relative_name(file.uri, folder).partition("/")
        number = rest.partition("/")[0]
        if base_name(file.uri) == "outcome.json" and number.isdecimal() and step in STEPS:
            latest[step] = max(latest.get(step, (0, "")), (int(number), file.uri))
    found = {}
    for step, (_, uri) in latest.items():
        with suppress(OSError, NightjarError):
            found[step] = parse_outcome(store.read_bytes(uri), uri)
    return found


def _steps(
    run: Run, store: Store, config: Mapping[str, Any], stats: Mapping[str, Any], *, is_held: bool
) -> tuple[StepSummary, ...]:
    """Return the steps of a run. Outcomes and progress are read only if the run is not done."""
    names = planned_steps(config, stats)
    ended = {step: _mapping(stats.get(step)) for step in names if isinstance(stats.get(step), dict)}
    if len(ended) == len(names) and all(each.get("error") is None for each in ended.values()):
        return tuple(StepSummary(step, Status.DONE, as_number(ended[step].get("seconds"))) for step in names)
    outcomes = latest_outcomes(run, store)
    return tuple(_step(run, store, step, ended.get(step), outcomes.get(step), is_held=is_held) for step in names)


def _with_charge(step: StepSummary, bill: Bill) -> StepSummary:
    charge = bill.steps.get(step.name)
    if charge is None:
        return step
    return replace(step, instance_seconds=charge.seconds, cost_usd=0.0 if bill.is_embedded else charge.usd)


def _step(
    run: Run, store: Store, step: str, stats: Mapping[str, Any] | None, outcome: Outcome | None, *, is_held: bool
) -> StepSummary:
    seconds = as_number(stats.get("seconds")) if stats is not None else None
    if stats is not None and outcome is not None and _end_of(stats) > _end_of_attempt(outcome):
        outcome = None  # a later attempt has written its statistics, but not yet its outcome
    failed = outcome is not None and outcome.exit_code != 0
    if stats is not None and stats.get("error") is None and not failed:
        return StepSummary(step, Status.DONE, seconds)
    progress = read_values(run.progress(step), store)
    message, last_sign = _text(progress.get("message")), as_number(progress.get("time")) or 0.0
    if is_held and message and last_sign > max(_end_of(stats or {}), _end_of_attempt(outcome)):
        return StepSummary(step, Status.RUNNING, progress=message)
    if outcome is not None and failed:
        return StepSummary(step, Status.FAILED, seconds, _text(outcome.cause), message)
    if stats is not None:
        return StepSummary(step, Status.FAILED, seconds, _text(str(stats.get("error"))), message)
    return StepSummary(step, Status.UNFINISHED, progress=message)


def _end_of(stats: Mapping[str, Any]) -> float:
    """Return when the attempt with these statistics ended, in seconds since 1970; 0 if it is not known."""
    return (as_number(stats.get("started")) or 0.0) + (as_number(stats.get("seconds")) or 0.0)


def _end_of_attempt(outcome: Outcome | None) -> float:
    return (seconds_of(outcome.ended) if outcome else None) or 0.0


def _status(steps: tuple[StepSummary, ...]) -> Status:
    states = {step.status for step in steps}
    return Status.FAILED if Status.FAILED in states else Status.DONE if states == {Status.DONE} else Status.UNFINISHED


def read_bill(run: Run, store: Store = ENVIRONMENT, *, is_running: bool) -> Bill | None:
    """Return the bill of a run. Return None if the run is not known to have used a cluster of its own."""
    uses = read_cluster_uses(run, read_values(run.config, store), store, is_running=is_running)
    return make_bill(uses, lambda: shown_prices(store)) if uses else None


def _cost_note(bill: Bill) -> str | None:
    """Return the note about the cost of a run (see `Summary.cost_note`)."""
    if bill.is_embedded:
        parts = [f"{duration(charge.seconds)} {name}" for name, charge in bill.instances.items()]
        parts += [with_unit(bill.total.usd, "USD")] if parts and bill.total.usd is not None else []
        on_aws = f"; on AWS it would be {', '.join(parts)}" if parts else ""
        return f"nothing on the embedded EMR{on_aws}{'' if bill.is_final else ', so far'}"
    if bill.problem:
        return bill.problem
    parts = ["so far"] * (not bill.is_final) + ["an upper bound, since a spot price is not known"] * bill.at_most
    return "; ".join(parts) or None


def _is_held(run: Run, store: Store) -> bool:
    with suppress(NightjarError, OSError):
        return is_held(run, time(), store)
    return False


def _start_of(stats: Mapping[str, Any], written: float | None, *, is_running: bool) -> float | None:
    """Return when a run started, in seconds since 1970: when its first step started.

    If the run is in progress, or no step has ended, return `written`, when its configuration was written. Return None
    if neither time is known.
    """
    steps = (each for each in _mapping(stats.get("steps")).values() if isinstance(each, dict))
    started = [each for each in (as_number(step.get("started")) for step in steps) if each is not None]
    if written is not None and (is_running or not started):
        started.append(written)
    return min(started, default=None)


def _written(run: Run, store: Store) -> float | None:
    """Return when a run's configuration was written, in seconds since 1970. Return None if there is none."""
    info = store.info(run.config)
    return info.modified_at if info else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return one_line(value, MOST_CHARACTERS) if isinstance(value, str) else None


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dict from dotted keys to the settings of a stored configuration, even settings that no longer exist."""
    return {key: value for key, value in flatten(config) if key != "chosen"}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each setting in nested tables."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs: a dict from a key to the values of all runs.

    `runs` has the settings of each run. The value is None for a run that lacks the setting.
    """
    keys = dict.fromkeys(key for settings in runs for key in settings)
    values = {key: [settings.get(key) for settings in runs] for key in keys}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}
