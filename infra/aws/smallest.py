"""The settings and the cost of the smallest run on AWS, ``nightjar aws-smoke``. This module does not import Airflow."""

from __future__ import annotations

from jobs.config import Config

LIMIT_SECONDS = 45 * 60.0
"""Seconds after which the cluster is ended, whatever it is running."""
SMALL = {
    "cluster.core_instances": 1,
    "cluster.task_instances": 0,
    "cluster.idle_timeout_seconds": 600,
    "cluster.step_timeout_seconds": 600,  # the time to live, after which the reaper ends the cluster, follows from this
    "train.workers": 1,
    "train.epochs": 0.2,
    "generate.max_new_words": 5,
}


def cost_text(config: Config) -> str:
    """Return a text with the instances that the run starts, and their time. The user confirms it before the start."""
    cluster = config.cluster
    return (
        f"one {cluster.primary_instance_types[0]} and {cluster.core_instances} {cluster.core_instance_types[0]}"
        f" for about 20 minutes, {LIMIT_SECONDS / 60:.0f} at most"
    )
