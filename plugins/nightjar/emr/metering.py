"""Measure the use of a cluster: when its instances and the run's steps ran, according to EMR, and the hourly prices."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.config import ClusterConfig, of_run
from jobs.errors import NightjarError
from jobs.lake.layout import Run
from jobs.lake.store import Store
from jobs.prices.book import shown_prices
from jobs.prices.metering import ClusterUse
from nightjar.aws import is_on_aws
from nightjar.emr import clusters, steps
from nightjar.errors import AWS_ERRORS, message_of

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient

log = logging.getLogger(__name__)


def meter(client: EMRClient, run: Run, cluster_id: str, store: Store) -> ClusterUse | None:
    """Return when a cluster's instances and the run's steps ran, with today's prices.

    Return None if EMR does not answer.
    """
    try:
        instances = clusters.instance_spans(client, cluster_id)
        spans = steps.step_spans(client, cluster_id, run)
    except AWS_ERRORS as error:
        log.warning("Cluster %s: how long its instances ran is not known (%s)", cluster_id, message_of(error))
        return None
    config = ClusterConfig()
    with suppress(NightjarError, OSError):  # metering must not keep a cluster from being ended
        config = of_run.read_config(run, store).cluster
    region, is_embedded = client.meta.region_name, not is_on_aws(client.meta.endpoint_url)
    use = ClusterUse(region, float(config.root_volume_gb), instances, spans, is_embedded=is_embedded)
    return _with_rates(use, store)


def _with_rates(use: ClusterUse, store: Store) -> ClusterUse:
    """Return `use` with today's hourly rates. The bill uses these rates even if prices change later."""
    try:
        prices = shown_prices(store)
    except (NightjarError, OSError) as error:
        log.warning("Prices cannot be read (%s)", message_of(error))
        return use
    found = {span.name: prices.rate(span.type, span.market, use.region, use.disk_gb) for span in use.instances}
    rates = {name: rate.usd for name, rate in found.items() if rate.usd is not None}
    return replace(use, rates=rates, bounds=tuple(name for name in rates if found[name].at_most))
