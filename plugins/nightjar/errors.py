"""How a task fails."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException, AirflowFailException


class UserError(AirflowFailException):
    """The user's input or configuration is wrong; a new try would end the same."""


class StepFailedError(AirflowException):
    """A step of the cluster failed; a new try may succeed."""
