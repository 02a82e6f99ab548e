"""The results of runs for people to read: summaries, lists, comparisons and the report.

Airflow's scheduler and its API server load these modules. So none of them imports numpy, torch, pyarrow or pyspark.
"""

from typing import Literal

SortKey = Literal[
    "started", "run_id", "status", "preset", "corpus", "num_parameters", "valid_loss", "bits_per_byte",
    "valid_accuracy", "tokens_per_second", "seconds", "instance_seconds", "cost_usd",
]  # fmt: skip
"""The columns by which a list of runs can be sorted: fields of `jobs.results.summary.Summary`."""
