"""Fit a run to its cluster before the cluster exists: executor sizes, GPUs and instance types."""

from __future__ import annotations

import logging

from jobs.config import Config
from jobs.config.releases import RELEASES
from jobs.config.sizes import check_gpus, check_placement, sized, unchecked_types

log = logging.getLogger(__name__)


def place(config: Config) -> Config:
    """Return the configuration with all sizes filled in, after checking that they fit the cluster's nodes.

    Raises:
        InputError: if the sizes do not fit, or if an instance type is not known and sizes are missing.
    """
    check_gpus(config)
    placed = sized(config)
    check_placement(placed)
    if config.cluster.release_label not in RELEASES:
        log.warning(
            "cluster.release_label=%s is not in the compatibility table (%s): this release is not checked",
            config.cluster.release_label,
            ", ".join(RELEASES),
        )
    if unchecked := unchecked_types(config):
        log.warning("The memory of %s for Spark was not measured; it is computed by a rule", ", ".join(unchecked))
    if config.cluster.torch_build == "cuda" and config.train.device == "auto":
        placed = placed.model_copy(update={"train": placed.train.model_copy(update={"device": "cuda"})})
    return placed
