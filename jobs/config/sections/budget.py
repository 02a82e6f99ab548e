"""Budgets: the most that a run, or all runs of a pipeline in a month, may cost."""

from __future__ import annotations

from pydantic import Field

from jobs.config.sections import Section


class BudgetConfig(Section):
    """The most that clusters may cost, in USD."""

    usd: float | None = Field(None, gt=0)
    """The most that the run may cost, in USD. If the estimate is higher, the run is refused before it has a cluster. If
    the run costs more than the estimate, training ends early but still gives a model, so that the later steps can be
    paid. The prices of all instance types of the cluster must be known (nightjar prices)."""
    usd_month: float | None = Field(None, gt=0)
    """The most that all runs of the pipeline together may cost in a calendar month (UTC), in USD. As with budget.usd, a
    run that would exceed the budget is refused, and training ends early when the rest of the budget is used up."""
