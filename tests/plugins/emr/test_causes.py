"""The error of a bootstrap action is in the cause of its cluster's end, or where EMR will write it."""

import gzip

import pytest

from jobs.lake.layout import Lake
from jobs.lake.uri import join
from nightjar.aws import store
from nightjar.emr import causes

MESSAGE = "On the master instance (i-0ab1), bootstrap action 2 returned a non-zero return code"


@pytest.fixture
def lake(lake_uri):
    return Lake(lake_uri)


def error(lake, message=MESSAGE):
    return causes._bootstrap_error(store(), lake, "j-1", message)


def log(lake):
    return join(lake.logs, "j-1/node/i-0ab1/bootstrap-actions/2/stderr.gz")


def test_the_last_error_of_the_action_is_named(lake):
    text = "pip: looking for torch\nbootstrap: FAILED: no wheel of torch\nclosing\n"
    store().write_bytes(log(lake), gzip.compress(text.encode()))
    assert error(lake) == "bootstrap: FAILED: no wheel of torch"


def test_without_the_log_its_place_is_named(lake):
    assert error(lake) == f"EMR writes the action's log to {log(lake)}"
    assert error(lake, "Bootstrap failure") == ""


def test_a_log_that_may_not_be_read_hides_nothing(lake, monkeypatch):
    def deny(_, uri):
        raise PermissionError(13, "Access Denied", uri)

    monkeypatch.setattr(type(store()), "read_bytes", deny)
    assert error(lake).startswith("the action's log cannot be read (PermissionError: [Errno 13] Access Denied: ")
