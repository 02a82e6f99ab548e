"""Fit a run to its cluster before one exists: sizes of executors, GPUs, and the instance types."""

from __future__ import annotations

import logging

from jobs.config import Config
from jobs.config.releases import RELEASES
from jobs.config.sizes import check_gpus, check_placement, sized, unchecked_types

log = logging.getLogger(__name__)


def place(config: Config) -> Config:
    """Return the configuration with all sizes, after checking that the cluster's nodes hold what it asks for.

    Raises:
        InputError: if they do not, or a type of instance is not known and sizes are missing.
    """
    check_gpus(config)
    placed = sized(config)
    check_placement(placed)
    if config.cluster.release_label not in RELEASES:
        log.warning(
            "cluster.release_label=%s is not in the compatibility table (%s): nothing of it is known here",
            config.cluster.release_label,
            ", ".join(RELEASES),
        )
    if unchecked := unchecked_types(config):
        log.warning("The memory of %s for Spark is computed by rule, and unchecked", ", ".join(unchecked))
    if config.cluster.torch_build == "cuda" and config.train.device == "auto":
        placed = placed.model_copy(update={"train": placed.train.model_copy(update={"device": "cuda"})})
    return placed
