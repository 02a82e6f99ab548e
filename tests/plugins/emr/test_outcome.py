"""Why a step failed: the outcome that its driver left in the lake comes first, EMR's logs are the fallback."""

import gzip
import time
from dataclasses import replace

import pytest

from jobs.lake.layout import Lake
from jobs.lake.outcome import Outcome
from jobs.lake.uri import join
from nightjar.aws import store
from nightjar.emr import outcome
from nightjar.errors import StepFailedError, UserError

LEFT = Outcome(
    step="train", attempt=2, exit_code=1, exception="DamagedError", message="shard 7: truncated",
    place="jobs/lake/manifest.py:88", host="node-1", started="2026-11-26T03:00:00.000+00:00",
    ended="2026-11-26T03:00:09.000+00:00",
)  # fmt: skip


@pytest.fixture
def run(lake_uri):
    return Lake(lake_uri).run("one")


def failed(run, attempt=2, reason="Unknown Error."):
    arguments = ["spark-submit", "launcher.py", "train", "--config", run.config, "--attempt", str(attempt)]
    status = {"State": "FAILED", "Timeline": {"StartDateTime": "then"}, "FailureDetails": {"Message": reason}}
    return {"Id": "s-1", "Name": "train", "Config": {"Args": arguments}, "Status": status}


def explain(run, step):
    """Without a client of EMR: for a step that has started, none is needed."""
    return outcome.explain_failure(None, store(), Lake(run.lake_uri), "j-1", step, wait_seconds=0.0)


def leave(run, left):
    store().write_bytes(run.outcome(left.step, left.attempt), left.to_json())


def log_exit_code(run, code, line, stderr=""):
    folder = join(Lake(run.lake_uri).logs, "j-1", "steps", "s-1")
    store().write_bytes(join(folder, "controller.gz"), gzip.compress(f"exit status {code}".encode()))
    store().write_bytes(join(folder, "stdout.gz"), gzip.compress(line.encode()))
    store().write_bytes(join(folder, "stderr.gz"), gzip.compress(stderr.encode()))


def test_the_outcome_comes_before_what_logs_say(run):
    leave(run, LEFT)
    log_exit_code(run, 2, "nightjar: another cause")
    error = explain(run, failed(run)).error("train", "s-1")
    assert isinstance(error, StepFailedError)
    assert str(error).endswith("DamagedError: shard 7: truncated (jobs/lake/manifest.py:88, host node-1)")


def test_wrong_input_is_the_users_error(run):
    leave(run, replace(LEFT, exit_code=2, exception="InputError", message="corpus: too short"))
    error = explain(run, failed(run)).error("train", "s-1")
    assert (type(error), str(error)) == (UserError, "corpus: too short")


def test_the_outcome_of_another_attempt_does_not_count(run):
    leave(run, LEFT)
    assert explain(run, failed(run, attempt=3, reason="spot node lost")).reason == "spot node lost"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"step": "train"}', LEFT.to_json().replace(b"1", b'"1"'), b"\xff"]
)
def test_without_a_readable_outcome_the_logs_are_read(run, content):
    store().write_bytes(run.outcome("train", 2), content)
    log_exit_code(run, 2, "nightjar: corpus: too short")
    assert str(explain(run, failed(run)).error("train", "s-1")) == "nightjar: corpus: too short"


def test_a_driver_that_was_done_is_not_the_cause(run):
    leave(run, replace(LEFT, exit_code=0, exception=None, message=None, place=None))
    assert explain(run, failed(run, reason="the JVM crashed")).reason == "the JVM crashed"


def test_a_message_with_several_lines_is_shown_as_one(run):
    leave(run, replace(LEFT, message="one\ntwo\x1b[31m", exit_code=2))
    assert explain(run, failed(run)).error("train", "s-1").args == (r"one\ntwo\x1b[31m",)


def test_logs_that_cannot_be_read_hide_nothing(run, monkeypatch):
    leave(run, LEFT)
    read = type(store()).read_bytes

    def deny_logs(self, uri):
        if uri.startswith(Lake(run.lake_uri).logs):
            raise PermissionError(13, "Access Denied", uri)
        return read(self, uri)

    monkeypatch.setattr(type(store()), "read_bytes", deny_logs)
    failure = explain(run, failed(run))
    assert failure.message == "shard 7: truncated"
    assert failure.log_tail.startswith("(its logs cannot be read: [Errno 13] Access Denied: ")
    started = time.monotonic()
    failure = outcome.explain_failure(None, store(), Lake(run.lake_uri), "j-1", failed(run, attempt=9), 60.0)
    assert failure.reason.startswith("its logs cannot be read ([Errno 13] Access Denied: ")
    assert time.monotonic() - started < 30  # what is denied is not waited for


JAVA = "26/11/26 03:00:00 INFO SparkContext: stopped\n"


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "words"),
    [
        (137, "step 7\n", JAVA, "the driver was killed (SIGKILL), probably because"),
        (134, "", "", "the driver ended by SIGABRT"),
        (1, "a line\nModuleNotFoundError: No module named 'torch'\n", JAVA, "ModuleNotFoundError: No module named 't"),
        (1, "", f"{JAVA}java.lang.OutOfMemoryError: Java heap space\n{JAVA}", "java.lang.OutOfMemoryError: Java heap"),
        (1, "nightjar: s3://b/k: the lake was unreachable\n", JAVA, "nightjar: s3://b/k: the lake was unreachable"),
        (127, "", "bash: /opt/python: No such file or directory\n", "bash: /opt/python: No such file or directory"),
        (1, "done\n", "ValueError: 7\n", "ValueError: 7"),
    ],
)
def test_without_an_outcome_the_last_error_in_the_log_is_the_cause(run, code, stdout, stderr, words):
    log_exit_code(run, code, stdout, stderr)
    assert explain(run, failed(run)).reason.startswith(words)
    both = explain(run, failed(run, reason="EMR's own words")).reason
    assert both.startswith("EMR's own words")
    assert code in (127,) or words in both


def test_a_cause_that_emr_has_named_is_said_once(run):
    log_exit_code(run, 1, "", "ValueError: 7\n")
    assert explain(run, failed(run, reason="exit status 1: ValueError: 7")).reason == "exit status 1: ValueError: 7"


def test_logs_are_waited_for_as_long_as_emr_takes_whatever_the_poll_interval():
    aws = "https://elasticmapreduce.eu-west-1.amazonaws.com"
    assert outcome.log_wait_seconds(aws, 1.0) == outcome.log_wait_seconds(aws, 60.0) > 5 * 60
    assert outcome.log_wait_seconds("http://127.0.0.1:5555", 1.0) == 12.0
