"""What the smallest run is, and what it starts: for the person who is asked. Imports no Airflow."""

from __future__ import annotations

from jobs.config import Config

LIMIT_SECONDS = 45 * 60.0
"""Time after which the cluster is ended, whatever runs."""
SMALL = {
    "cluster.core_instances": 1,
    "cluster.task_instances": 0,
    "cluster.idle_timeout_seconds": 600,
    "cluster.step_timeout_seconds": 600,  # the reaper's limit follows from it
    "train.workers": 1,
    "train.epochs": 0.2,
    "generate.max_new_words": 5,
}


def cost_text(config: Config) -> str:
    """Return what the run starts, for the person who pays."""
    cluster = config.cluster
    return (
        f"one {cluster.primary_instance_types[0]} and {cluster.core_instances} {cluster.core_instance_types[0]}"
        f" for about 20 minutes, {LIMIT_SECONDS / 60:.0f} at most"
    )
