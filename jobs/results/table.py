"""The columns of a list of runs, and the texts of its cells."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.results import SortKey
from jobs.results.summary import Status, Summary
from jobs.results.text import moment, readable, with_unit

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
    "instance_seconds": "instance time",
    "cost_usd": "cost",
}
"""A dict from the columns of the list to their labels."""


def cells(summary: Summary) -> dict[str, str]:
    """Return a dict from the columns to the texts of a run's row. The text of an unknown value is "-".

    Two more texts are not columns. ``baseline`` is shown beside the validation loss. ``note`` is shown beside the run:
    why the run failed, how far it is, or which model it uses instead of training one.
    """
    has_baseline = summary.baseline_loss is not None and summary.valid_loss is not None
    running = (f"{each.name}: {each.progress}" for each in summary.steps if each.status is Status.RUNNING)
    return {
        "run_id": "/".join(filter(None, (summary.pipeline, summary.run_id))),
        "status": str(summary.status),
        "started": moment(summary.started),
        "preset": readable(summary.preset),
        "corpus": readable(summary.corpus),
        "num_parameters": readable(summary.num_parameters),
        "valid_loss": readable(summary.valid_loss),
        "bits_per_byte": readable(summary.bits_per_byte),
        "tokens_per_second": readable(summary.tokens_per_second),
        "seconds": with_unit(summary.seconds, "s"),
        "instance_seconds": with_unit(summary.instance_seconds, "s"),
        "cost_usd": with_unit(summary.cost_usd, "USD"),
        "baseline": f"{summary.baseline} {readable(summary.baseline_loss)}" if has_baseline else "",
        "note": summary.cause or next(running, "") or _use(summary),
    }


def _use(summary: Summary) -> str:
    """Return the step and the used model as text, as ``evaluate champion``. Return "" if the run trains a model."""
    return " ".join([*(step.name for step in summary.steps), summary.used_model]) if summary.used_model else ""
