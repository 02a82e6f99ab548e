"""The columns of a list of runs, and the texts of its cells."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.results import SortKey
from jobs.results.summary import Summary
from jobs.results.text import duration, moment, readable

COLUMNS: Mapping[SortKey, str] = {
    "run_id": "run",
    "status": "state",
    "started": "started",
    "preset": "preset",
    "corpus": "corpus",
    "num_parameters": "parameters",
    "valid_loss": "validation loss",
    "bits_per_byte": "bits per byte",
    "tokens_per_second": "tokens/s",
    "seconds": "duration",
}
"""The columns with their labels."""


def cells(summary: Summary) -> dict[SortKey, str]:
    """Return the text of each column of a run; "-" where nothing is known."""
    loss = readable(summary.valid_loss)
    if summary.baseline_loss is not None and summary.valid_loss is not None:
        loss += f" ({summary.baseline} {readable(summary.baseline_loss)})"
    return {
        "run_id": "/".join(filter(None, (summary.pipeline, summary.run_id))),
        "status": str(summary.status),
        "started": moment(summary.started),
        "preset": readable(summary.preset),
        "corpus": readable(summary.corpus),
        "num_parameters": readable(summary.num_parameters),
        "valid_loss": loss,
        "bits_per_byte": readable(summary.bits_per_byte),
        "tokens_per_second": readable(summary.tokens_per_second),
        "seconds": "-" if summary.seconds is None else duration(summary.seconds),
    }
