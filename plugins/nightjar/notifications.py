"""Send the notifications of a pipeline with Airflow's own notifiers: for Slack, e-mail, Amazon SNS and others.

A pipeline's file names the notifier's class and its arguments. Airflow fills in templates in the arguments. Airflow's
providers are slow to import, so the class is imported only to check or to send a notification.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from jobs.errors import BudgetError, InputError

if TYPE_CHECKING:
    from airflow.sdk import Context

Occasion = Literal["failure", "promotion", "rejection", "budget"]
"""When a notification is sent.

- `failure`: the run failed.
- `promotion`: the run's model became the champion.
- `rejection`: the run was complete, and the previous champion stayed.
- `budget`: a budget refused the run or ended its training.
"""


def _check_class(path: str) -> str:
    module, dot, name = path.rpartition(".")
    try:
        if dot and name.isidentifier() and importlib.util.find_spec(module) is not None:
            return path
        reason = "no such module"
    except (ImportError, ValueError) as error:
        reason = str(error)
    raise ValueError(f"not the class of an installed notifier ({reason}); install the provider, or correct the name")


class Notification(BaseModel):
    """A table ``[[pipeline.notify]]`` of a pipeline's file.

    Keys other than `on` and `notifier` are arguments of the notifier.
    """

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    on: Annotated[tuple[Occasion, ...], Field(min_length=1)]
    """When to send the notification: a list of ``failure``, ``promotion``, ``rejection`` and ``budget``."""
    notifier: Annotated[str, AfterValidator(_check_class)]
    """The notifier's class, such as ``airflow.providers.smtp.notifications.smtp.SmtpNotifier``."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of the notifier."""
        return self.model_extra or {}

    def make(self) -> Any:
        """Return the notifier. Raise `InputError` if the class does not exist or does not take one of the arguments."""
        module, _, name = self.notifier.rpartition(".")
        where = f"pipeline.notify: {self.notifier}"
        try:
            kind = getattr(importlib.import_module(module), name)
            inspect.signature(kind).bind(**self.arguments)
            return kind(**self.arguments)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{where}: {str(error).splitlines()[0]}; correct the arguments of this notifier") from None


@dataclass(frozen=True)
class Send:
    """A callback of Airflow that sends a notification."""

    notification: Notification

    def __call__(self, context: Context) -> None:
        """Send the notification."""
        self.notification.make()({**context})


@dataclass(frozen=True)
class SendDecision:
    """A callback of the task `promote` that sends a notification about its decision.

    Templates of the notifier may also use `decision`, the return value of the task, as in ``{{ decision.why }}``.
    """

    notification: Notification

    def __call__(self, context: Context) -> None:
        """Send the notification if `on` lists the decision. Send nothing about a run that cannot promote a model."""
        decision = context["ti"].xcom_pull(task_ids=context["ti"].task_id)
        occasion = "promotion" if decision["promoted"] else "rejection"
        if decision.get("judged", True) and occasion in self.notification.on:
            self.notification.make()({**context, "decision": decision})


@dataclass(frozen=True)
class SendBudget:
    """A callback that sends a notification if a budget has refused a run, or has ended its training.

    Templates of the notifier may also use `budget`, one line about what happened.
    """

    notification: Notification

    def __call__(self, context: Context) -> None:
        """Send the notification if a budget made the task fail, or ended the run's training."""
        if budget := _effect_of_budget(context):
            self.notification.make()({**context, "budget": budget})


def _effect_of_budget(context: Context) -> str:
    """Return one line about how a budget refused or shortened a run, or "" if it did neither.

    `context` belongs to a failed task, or to `pull_stats`.
    """
    if error := context.get("exception"):
        cause = getattr(error, "__context__", None)  # `input_errors_are_final` raises another error
        return str(error) if isinstance(cause, BudgetError) else ""
    stats = context["ti"].xcom_pull(task_ids=context["ti"].task_id)
    return "the budget ended the training early; the run has a model" if stats.get("stopped_by_budget") else ""


def on_failure(notifications: Iterable[Notification]) -> list[Callable[[Context], None]]:
    """Return the callbacks of a DAG for failed runs."""
    return [Send(each) for each in notifications if "failure" in each.on]


def on_decision(notifications: Iterable[Notification]) -> list[Callable[[Context], None]]:
    """Return the callbacks of the task `promote`."""
    return [SendDecision(each) for each in notifications if {"promotion", "rejection"} & set(each.on)]


def on_budget(notifications: Iterable[Notification]) -> list[Callable[[Context], None]]:
    """Return the callbacks about budgets: for tasks that fail, and for ``pull_stats`` when it succeeds."""
    return [SendBudget(each) for each in notifications if "budget" in each.on]


def check(notifications: Iterable[Notification]) -> None:
    """Raise InputError if a notification could not be sent because its class or its arguments are wrong."""
    for each in notifications:
        each.make()
