"""The progress of a step: a line that is redrawn on a terminal, and log lines elsewhere."""

import io
import logging
import sys

import pytest

from jobs.cli import progress
from jobs.cli.progress import show_progress
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.uri import to_uri


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(logging.getLogger("jobs"), "level", logging.INFO)
    return Lake(to_uri(str(tmp_path))).run("r")


def test_a_terminal_shows_the_latest_message_and_the_duration(run, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    store.write_json(run.progress("train"), {"message": "step 3/7  loss [4.50]"})
    with show_progress(run, "train", "INFO"):
        assert logging.getLogger("jobs").level == logging.WARNING
        while "loss [4.50]" not in terminal.getvalue():
            pass
    assert "done train" in terminal.getvalue().splitlines()[-1]
    assert logging.getLogger("jobs").level == logging.INFO


def test_a_step_that_fails_is_not_done(run, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(OSError, match="no space"), show_progress(run, "train", "INFO"):
        raise OSError("no space")
    assert "done" not in terminal.getvalue()


@pytest.mark.parametrize(("stream", "level"), [(io.StringIO, "INFO"), (Terminal, "DEBUG")])
def test_elsewhere_the_log_lines_stay(run, monkeypatch, stream, level):
    output = stream()
    monkeypatch.setattr(sys, "stderr", output)
    with show_progress(run, "train", level):
        assert logging.getLogger("jobs").level == logging.INFO
    assert output.getvalue() == ""


def test_elsewhere_each_new_message_of_training_is_a_log_line(run, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    store.write_json(run.progress("train"), {"message": "of an earlier attempt"})
    with caplog.at_level(logging.INFO, logger="jobs"), show_progress(run, "train", "INFO"):
        for message in ("step 3/7", "step 5/7"):
            store.write_json(run.progress("train"), {"message": message})
            while f"train: {message}" not in caplog.messages:
                pass
    assert caplog.messages == ["train: step 3/7", "train: step 5/7"]
