"""Fixtures of the command line's tests."""

import logging

import pytest


@pytest.fixture(autouse=True)
def restored_log_handlers():
    """The command line logs to a test's standard error, which is closed when the test is over."""
    before = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = before
