"""Keep the error messages of failed tasks, for the report of the run.

Each message is an XCom of its task, which Airflow deletes when the task is retried.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jobs.results.summary import MOST_CHARACTERS
from jobs.results.text import one_line
from nightjar.errors import message_of
from nightjar.tasks.results import to_storable_json

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

KEY = "cause"


def keep_cause(context: Context) -> None:
    """Keep the error message of a failed task. If this fails, log a warning: the task's error must not be hidden."""
    try:
        error = context.get("exception")
        if error is not None:
            words = message_of(error) if isinstance(error, BaseException) else str(error)
            context["ti"].xcom_push(KEY, to_storable_json(one_line(words, MOST_CHARACTERS)))
    except Exception as problem:
        log.warning("The cause of the failure could not be kept (%s: %s)", type(problem).__name__, problem)
        log.debug("traceback", exc_info=True)


def causes_of(context: Context, states: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return a dict from the id of each failed task to its error message, or to None if the message is not known."""
    return {task: _cause_of(context, task) for task, state in states.items() if state == "failed"}


def _cause_of(context: Context, task: str) -> str | None:
    try:
        found = context["ti"].xcom_pull(task_ids=task, key=KEY)
    except Exception as problem:
        log.warning("The cause of the failure of %s could not be read (%s: %s)", task, type(problem).__name__, problem)
        log.debug("traceback", exc_info=True)
        return None
    return found if isinstance(found, str) and found else None
