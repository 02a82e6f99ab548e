"""The cause of a failed task, as its callback keeps it and `pull_stats` reads it."""

import pytest

from jobs.errors import InputError
from nightjar.errors import UserError, input_errors_are_final
from nightjar.failures import causes_of, keep_cause


class Xcoms:
    """The XComs of a run, as its tasks see them."""

    def __init__(self):
        self.kept = {}
        self.is_away = False

    def of(self, task):
        return Task(self, task)


class Task:
    """A task instance, which can keep values and read those of other tasks."""

    def __init__(self, xcoms, task):
        self.xcoms, self.task = xcoms, task

    def xcom_push(self, key, value):
        if self.xcoms.is_away:
            raise RuntimeError("API_SERVER_ERROR")
        self.xcoms.kept[self.task, key] = value

    def xcom_pull(self, task_ids, key):
        if self.xcoms.is_away:
            raise RuntimeError("API_SERVER_ERROR")
        return self.xcoms.kept.get((task_ids, key))


def refused():
    with pytest.raises(UserError) as found, input_errors_are_final():
        raise InputError("/texts/a.png: it is no text; take it out of the corpus")
    return found.value


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (refused(), "/texts/a.png: it is no text; take it out of the corpus"),
        (ValueError("a defect\nin two lines"), "ValueError: a defect"),
        (InputError("a name with \0 in it"), "a name with in it"),
        (SystemExit("stopped"), "SystemExit: stopped"),
        (None, None),  # Airflow found the task's process gone
    ],
)
def test_the_error_of_a_failed_task_is_its_cause(error, cause):
    xcoms = Xcoms()
    keep_cause({"ti": xcoms.of("preflight"), "exception": error})
    states = {"preflight": "failed", "sweep": "upstream_failed", "pull_stats": "running"}
    assert causes_of({"ti": xcoms.of("pull_stats")}, states) == {"preflight": cause}


def test_a_cause_that_cannot_be_kept_or_read_hides_no_error(caplog):
    xcoms = Xcoms()
    xcoms.is_away = True
    keep_cause({"ti": xcoms.of("preflight"), "exception": refused()})
    assert causes_of({"ti": xcoms.of("pull_stats")}, {"preflight": "failed"}) == {"preflight": None}
    assert "The cause of the failure could not be kept (RuntimeError: API_SERVER_ERROR)" in caplog.text
    assert "The cause of the failure of preflight could not be read (RuntimeError: API_SERVER_ERROR)" in caplog.text
