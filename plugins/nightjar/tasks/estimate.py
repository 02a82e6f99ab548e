"""What a run is expected to take and to cost, said and checked against its budget before it has a cluster."""

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
    """The estimate of a run, and what training needs to keep to its budget."""

    estimate: Estimate
    budget: dict[str, Any] | None


def expect(config: Config, run: Run, corpus: Listing, start: str | None) -> Expected:
    """Return what a run is expected to take.

    Args:
        config: Its configuration.
        run: The run.
        corpus: The files that it will read.
        start: The model that its training starts from; None for random weights, or without training.

    Raises:
        InputError: if it would exceed a budget, or a price lacks for one.
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
    """Return the share of a corpus in files that the run of the model at `start` did not have, by names and sizes.

    None if that is not known: where all sizes are known, new names may be those of earlier files.
    """
    known = files_behind(start, Lake(run.lake_uri), aws.store()) if start else None
    if known is None or {source.size for source in corpus.sources} <= {each["size"] for each in known}:
        return None
    files = [((source.name, source.size), source.size) for source in corpus.sources]
    return share_of_new(files, ((each["name"], each["size"]) for each in known))


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
