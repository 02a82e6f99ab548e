"""What a run, and the runs of a pipeline in a month, may cost."""

from __future__ import annotations

from pydantic import Field

from jobs.config.sections import Section


class BudgetConfig(Section):
    """The most that clusters may cost, in USD."""

    usd: float | None = Field(None, gt=0)
    """Most that the run may cost in USD. A run that is expected to cost more is refused before it has a cluster. If it
    costs more than expected, training ends early, with a model, so that the later steps can still be paid. The prices
    of all instance types of the cluster must be known (nightjar prices)."""
    usd_month: float | None = Field(None, gt=0)
    """Most that all runs of the pipeline together may cost in a calendar month (UTC), in USD. It works like budget.usd:
    a run that would exceed it is refused, and what is left for the month ends training early."""
