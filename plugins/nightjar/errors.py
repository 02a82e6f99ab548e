"""The errors that fail a task of the DAG, with or without a retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowException, AirflowFailException
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BotoConnectionError

from jobs.errors import InputError, LakeError, NightjarError
from jobs.lake.retry import is_transient

_THROTTLED = ("throttl", "slowdown", "toomanyrequests", "requestlimitexceeded", "requesttimeout")


class UserError(InputError, AirflowFailException):
    """The user's input or configuration is wrong. Airflow fails the task at once and does not retry it."""


class FinalError(NightjarError, AirflowFailException):
    """A retry cannot help, and would hide the cause. Airflow fails the task at once."""


class StepFailedError(NightjarError, AirflowException):
    """A step on the cluster failed. Airflow retries the task."""


class MayStillRunError(NightjarError, AirflowException):
    """Clusters may still run, because they could not be found, ended or observed. The message names each of them."""


class TransientFaultError(NightjarError, AirflowException):
    """AWS or the lake failed in a way that may pass. Airflow retries the task."""


@contextmanager
def input_errors_are_final() -> Iterator[None]:
    """Convert an `InputError` in the block to a `TransientFaultError` if its cause may pass, else to a `UserError`."""
    try:
        yield
    except InputError as error:
        if may_pass(error):
            raise TransientFaultError(str(error)) from error
        raise UserError(str(error)) from None


def may_pass(error: BaseException | None) -> bool:
    """Return whether an error or one of its causes may pass by itself, such as throttling or a status 503."""
    while error is not None:
        if isinstance(error, OSError) and is_transient(error):
            return True
        if isinstance(error, LakeError | HTTPClientError | BotoConnectionError | IncompleteReadError):
            return True
        if isinstance(error, ClientError) and not is_refusal(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_refusal(error: ClientError) -> bool:
    """Return whether AWS has refused a request permanently, so that the request had no effect."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.response.get("Error", {}).get("Code", "").replace(" ", "").lower()
    return 400 <= status < 500 and status not in (408, 409, 429) and not any(word in code for word in _THROTTLED)


def message_of(error: BaseException) -> str:
    """Return an error's message in one line. For a failed AWS request, it includes the operation and AWS's code."""
    if isinstance(error, ClientError):
        found = error.response.get("Error", {})
        return f"{error.operation_name}: {found.get('Code', '')}: {found.get('Message', '')}".replace("\n", " ")
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, NightjarError) else f"{type(error).__name__}: {first}"


AWS_ERRORS = (ClientError, BotoCoreError)
"""The exceptions that a boto3 client raises."""
