"""Exit codes of errors, and their way through a pickle: Spark sends them from its workers to the driver."""

import pickle

import pytest
from airflow.sdk.exceptions import AirflowFailException

from infra.airflow.processes import ProcessError
from infra.emr.server import StartError
from jobs import errors
from nightjar.errors import StepFailedError, UserError


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.NightjarError("x"), 1),
        (errors.InputError("x"), 2),
        (errors.DamagedError("x"), 1),
        (errors.LakeError("x"), 1),
        (errors.WorkerLostError("x"), 1),
        (errors.DivergedError("x", 3), 1),
        (errors.StoppedError("x"), 1),
        (UserError("x"), 2),
        (StepFailedError("x"), 1),
        (ProcessError("x"), 1),
        (StartError("x"), 2),
    ],
)
def test_an_error_keeps_message_and_exit_code_through_a_pickle(error, exit_code):
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, errors.NightjarError)
    assert (type(copy), str(copy), copy.exit_code) == (type(error), "x", exit_code)


def test_damaged_data_is_not_the_users_error():
    assert not issubclass(errors.DamagedError, errors.InputError)


def test_only_a_users_error_is_not_retried_by_airflow():
    assert issubclass(UserError, AirflowFailException)
    assert not issubclass(StepFailedError, AirflowFailException)
