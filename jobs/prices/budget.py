"""Checks the budgets of a run and of a pipeline's month before a cluster exists, and limits the time of training.

The task preflight writes ``budget.json``: the highest cost of the cluster per hour, the cost of the month's other runs,
and the seconds of the steps after training. From this file, training on the cluster computes how long the budget lasts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobs.config import Config
from jobs.errors import BudgetError, InputError, NightjarError, reading
from jobs.lake.layout import FIRST_CLUSTER, Pipeline, Run
from jobs.lake.runs import runs_beside
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import join
from jobs.prices.bill import make_bill
from jobs.prices.book import PriceBook, explain_missing
from jobs.prices.estimate import Estimate, hourly_at_most
from jobs.prices.metering import ClusterUse, read_cluster_uses

LATER_SHARE = 0.1
"""The share of the remaining budget that training leaves for the later steps, if their cost cannot be estimated."""
_LONGEST_RUN_SECONDS = 31 * 86_400.0
_SHORTEN = "shorten the run (train.max_tokens, train.max_seconds, train.epochs)"
_GIVE_LESS = "give the run less text or fewer prompts"


def has_budget(config: Config) -> bool:
    """Return whether a budget applies: the run has a budget, and creates its own cluster."""
    budget = config.budget
    return (budget.usd is not None or budget.usd_month is not None) and config.cluster.job_flow_id is None


def describe_budget(config: Config) -> str:
    """Return the settings of a run's budgets as text, such as ``budget.usd=5``."""
    values = (("budget.usd", config.budget.usd), ("budget.usd_month", config.budget.usd_month))
    return ", ".join(f"{key}={value:g}" for key, value in values if value is not None)


def check_budget(
    run: Run,
    config: Config,
    estimate: Estimate,
    prices: PriceBook,
    region: str,
    store: Store = ENVIRONMENT,
    now: float | None = None,
) -> dict[str, Any] | None:
    """Check that a run is not expected to exceed its budgets, and return the content of ``budget.json``.

    Return None if the run has no budget.

    Raises:
        BudgetError: if a price is not known, or if the run is expected to exceed a budget.
    """
    if not has_budget(config):
        return None
    hourly = hourly_at_most(config, prices, region)
    if hourly.usd is None:
        raise BudgetError(f"{describe_budget(config)}: the budget cannot be checked: {explain_missing(hourly.missing)}")
    expected, usd, month = estimate.usd, config.budget.usd, config.budget.usd_month
    shorten = _SHORTEN if config.trains else _GIVE_LESS
    if usd is not None and expected is not None and expected > usd:
        raise BudgetError(
            f"budget.usd: the run is expected to cost {expected:.2f} USD, more than {usd:.2f}"
            f" ({estimate}); raise budget.usd, or {shorten}"
        )
    spent = None
    if month is not None:
        moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
        spent = spent_in_month(run, prices, store, moment)
        wanted = "" if expected is None else f", and this one is expected to cost {expected:.2f}"
        if spent >= month or spent + (expected or 0.0) > month:
            raise BudgetError(
                f"budget.usd_month: runs of the pipeline {Pipeline.of(run).name} have cost {spent:.2f} USD since"
                f" {moment:%Y-%m}-01 (UTC){wanted}, more than {month:.2f} together; raise budget.usd_month, wait for"
                f" the next month, or {shorten}"
            )
    return {"hourly_usd": hourly.usd, "month_spent_usd": spent, "later_seconds": _later_seconds(config, estimate)}


def _later_seconds(config: Config, estimate: Estimate) -> float | None:
    """Return how many seconds the steps after training and the end of the cluster are expected to take.

    Return None if there is no estimate, or if the run does not train.
    """
    if estimate.instance_seconds is None or not config.trains:
        return None
    later = config.steps[config.steps.index("train") + 1 :]
    return sum(estimate.steps.get(step, 0.0) for step in later) + (estimate.other_seconds or 0.0) / 2


def spent_in_month(run: Run, prices: PriceBook, store: Store, now: datetime) -> float:
    """Return what the other runs of a run's pipeline have cost since the month began, in USD.

    Raises:
        BudgetError: if the cost of one of these runs is not known.
    """
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    uses = [use for other in _runs_since(run, start, store) for use in _uses(other, store, now.timestamp())]
    bill = make_bill([_clipped(use, start) for use in uses], lambda: prices)
    if bill.total.usd is None:
        raise BudgetError(f"budget.usd_month: the cost of this month's runs is not known: {bill.problem}")
    return bill.total.usd


def _runs_since(run: Run, start: float, store: Store) -> Iterator[Run]:
    """Yield the other runs of a run's pipeline whose clusters may have run since `start`.

    When a run ends, all records of its clusters are written again, so the time of the first record is enough. A run in
    progress may have written its records before `start`. So also yield a run whose first record was written before
    `start`, but not longer before it than the longest run lasts.
    """
    for other in runs_beside(run, store):
        info = store.info(join(other.clusters, FIRST_CLUSTER))
        if info is not None and info.modified_at >= start - _LONGEST_RUN_SECONDS:
            yield other


def _uses(run: Run, store: Store, now: float) -> Iterator[ClusterUse]:
    """Yield the use of each cluster of a run.

    A cluster without a recorded end counts for at most the longest time that its settings allow.
    """
    config: dict[str, Any] = {}
    with suppress(OSError, NightjarError):
        config = Config.from_json(store.read_bytes(run.config).decode(errors="replace")).model_dump(mode="json")
    most = _longest_life(config)
    for use in read_cluster_uses(run, config, store, now=now):
        spans = use.instances
        if not use.is_final:
            spans = tuple(replace(span, ended=min(span.ended, span.started + most)) for span in spans)
        yield replace(use, instances=spans)


def _longest_life(config: Mapping[str, Any]) -> float:
    cluster = config.get("cluster") or {}
    steps = 3600.0 + 6 * float(cluster.get("step_timeout_seconds") or 21_600)
    return max(steps, 3600.0 * float(cluster.get("time_to_live_hours") or 0))


def _clipped(use: ClusterUse, start: float) -> ClusterUse:
    """Return the part of a cluster's use that is after `start`."""
    spans = [replace(span, started=max(span.started, start)) for span in use.instances if span.ended > start]
    return replace(use, instances=tuple(spans))


def seconds_for_training(
    run: Run, config: Config, store: Store = ENVIRONMENT, now: float | None = None
) -> float | None:
    """Return for how many seconds from now on the budget pays for training. Return None if the run has no budget.

    Also return None if the run has no cluster and no ``budget.json``: it runs without Airflow, and costs nothing.

    Raises:
        InputError: if the run has a cluster, and its budget was set after the task preflight.
    """
    if not has_budget(config):
        return None
    try:
        with reading(run.budget, "clear the task preflight, which writes it again"):
            values = store.read_json(run.budget)
            hourly = float(values["hourly_usd"])
            spent, later = (None if values[key] is None else float(values[key]) for key in _OPTIONAL)
    except FileNotFoundError:
        values = None
    month = config.budget.usd_month
    if values is None or (month is not None and spent is None):
        if store.list_files(run.clusters):
            raise InputError(
                f"{describe_budget(config)}: this budget was set after preflight had run; clear the task preflight, so"
                " that it checks the budget"
            ) from None
        return None
    limits = (config.budget.usd, None if month is None else month - (spent or 0.0))
    limit = min(each for each in limits if each is not None)
    moment = time.time() if now is None else now
    left = limit - _spent(run, config, hourly, store, moment)
    reserve = LATER_SHARE * max(left, 0.0) if later is None else hourly * later / 3600
    return (left - reserve) / hourly * 3600 if hourly else float("inf")


_OPTIONAL = ("month_spent_usd", "later_seconds")


def _spent(run: Run, config: Config, hourly: float, store: Store, now: float) -> float:
    """Return what a run has cost so far, in USD.

    The cost of an ended cluster is that of its bill. If a cluster has not ended, or its bill has no cost, its time is
    charged at `hourly`, the highest cost of the cluster per hour.
    """
    spent = 0.0
    for use in read_cluster_uses(run, config.model_dump(mode="json"), store, now=now):
        ended = max((span.ended for span in use.instances), default=0.0)
        started = min((span.started for span in use.instances), default=0.0)
        bill = make_bill([use], lambda: PriceBook(())) if use.is_final else None
        known = bill.total.usd if bill else None
        spent += hourly * (ended - started) / 3600 if known is None else known
    return spent
