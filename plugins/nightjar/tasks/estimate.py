"""What a run is expected to take and to cost, said and checked against its budget before it has a cluster."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from jobs.config import Config
from jobs.lake.layout import Run
from jobs.lake.plain_json import to_json
from jobs.prices.book import load_prices
from jobs.prices.budget import check_budget
from jobs.prices.estimate import Estimate, make_estimate
from jobs.prices.history import read_nights
from nightjar import aws
from nightjar.emr.requests import START_LIMIT_SECONDS, time_to_live

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Expected:
    """The estimate of a run, and what training needs to keep to its budget."""

    estimate: Estimate
    budget: dict[str, Any] | None


def expect(config: Config, run: Run, corpus_bytes: int) -> Expected:
    """Return what a run is expected to take; raise InputError if it would exceed a budget, or a price lacks for one."""
    store, region = aws.store(), aws.emr_client().meta.region_name
    prices = load_prices(store)
    if config.cluster.job_flow_id:
        return Expected(Estimate(corpus_bytes, reason="a cluster of your own is not billed"), None)
    made = make_estimate(config, corpus_bytes, read_nights(run, store), prices, region, longest_seconds(config))
    log.info("%s", made)
    return Expected(made, check_budget(run, config, made, prices, region, store))


def record(run: Run, expected: Expected) -> None:
    """Write the estimate beside the configuration, unless an earlier start has, and the budget anew."""
    store = aws.store()
    store.publish(run.estimate, to_json(expected.estimate.to_json(), run.estimate))
    if expected.budget is not None:
        store.write_json(run.budget, expected.budget)
    elif store.exists(run.budget):
        store.delete_file(run.budget)


def longest_seconds(config: Config) -> float:
    """Return how long the limits of the settings let a cluster live; training counts with `train.max_seconds`."""
    limit = float(config.cluster.step_timeout_seconds)
    training = min(limit, config.train.max_seconds or limit)
    steps = sum(training if step == "train" else limit for step in config.steps)
    return min(START_LIMIT_SECONDS + steps, time_to_live(config).total_seconds())
