"""Estimate the time and the cost of a run, and check them against its budgets, before the run has a cluster."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from jobs.config import Config
from jobs.lake.layout import Lake, Run
from jobs.lake.strict_json import to_json
from jobs.prices.book import load_prices
from jobs.prices.budget import check_budget
from jobs.prices.estimate import Estimate, make_estimate
from jobs.prices.history import read_nights
from jobs.sources.listing import Listing
from jobs.sources.new_text import files_behind, share_of_new
from nightjar import aws
from nightjar.emr.requests import START_LIMIT_SECONDS, time_to_live

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Expected:
    """The estimate of a run, and the content of ``budget.json``, which training reads to stay within the budget."""

    estimate: Estimate
    budget: dict[str, Any] | None


def expect(config: Config, run: Run, corpus: Listing, start: str | None) -> Expected:
    """Estimate a run and check the estimate against the run's budgets. Return the estimate and the budget.

    Args:
        config: The run's configuration.
        run: The run.
        corpus: The files that the run will read.
        start: The model that training starts from. None for random weights, or without training.

    Raises:
        InputError: if the run would exceed a budget, or if a price that a budget needs is missing.
    """
    store, meta = aws.store(), aws.emr_client().meta
    region = meta.region_name
    prices = load_prices(store)
    if config.cluster.job_flow_id:
        return Expected(Estimate(corpus.size, reason="a cluster of your own is not billed"), None)
    expected = config.model_copy(update={"train": config.train.with_epochs_for(share_of_new_text(corpus, start, run))})
    made = make_estimate(expected, corpus.size, read_nights(run, store), prices, region, longest_seconds(config))
    made = replace(made, is_embedded=not aws.is_on_aws(meta.endpoint_url))
    log.info("%s", made)
    return Expected(made, check_budget(run, config, made, prices, region, store))


def share_of_new_text(corpus: Listing, start: str | None, run: Run) -> float | None:
    """Return the share of a corpus's bytes that are in new files: files that the model at `start` was not trained on.

    Files are compared by name and size. Return None if the share is not known. If each file has the size of a
    file that the model was trained on, the share counts as not known, because the files may only have been renamed.
    """
    known = files_behind(start, Lake(run.lake_uri), aws.store()) if start else None
    if known is None or {source.size for source in corpus.sources} <= {each["size"] for each in known}:
        return None
    files = [((source.name, source.size), source.size) for source in corpus.sources]
    return share_of_new(files, ((each["name"], each["size"]) for each in known))


def record(run: Run, expected: Expected) -> None:
    """Write the estimate of a run, unless an earlier start of the run wrote one. Always replace ``budget.json``."""
    store = aws.store()
    store.publish(run.estimate, to_json(expected.estimate.to_json(), run.estimate))
    if expected.budget is not None:
        store.write_json(run.budget, expected.budget)
    elif store.exists(run.budget):
        store.delete_file(run.budget)


def longest_seconds(config: Config) -> float:
    """Return the longest time, in seconds, that a cluster can run within the time limits in the settings.

    For training, the limit is `train.max_seconds` or the time limit of a step, whichever is lower.
    """
    limit = float(config.cluster.step_timeout_seconds)
    training = min(limit, config.train.max_seconds or limit)
    steps = sum(training if step == "train" else limit for step in config.steps)
    return min(START_LIMIT_SECONDS + steps, time_to_live(config).total_seconds())
