"""The errors that fail a task of the DAG, with or without a retry."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from jobs.errors import InputError, NightjarError


class UserError(InputError, AirflowFailException):
    """The user's input or configuration is wrong. Airflow fails the task at once and does not retry it."""


class StepFailedError(NightjarError, AirflowException):
    """A step on the cluster failed. Airflow retries the task."""
