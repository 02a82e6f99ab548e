"""Show the mistakes in the pipelines' files as an import error of Airflow, one line for each mistake.

Airflow hides all DAGs of a file that has an import error. So this file only reports the mistakes, and `train_llm.py`
makes the DAGs.
"""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG

from jobs.errors import InputError
from nightjar import pipelines, settings


class WrongPipelines(DAG):
    """A DAG whose validation fails, so that Airflow shows the mistakes without a traceback."""

    def validate(self) -> None:
        """Raise InputError with all mistakes. Airflow calls this method before it accepts a DAG."""
        raise InputError("\n".join(MISTAKES))


_, MISTAKES = pipelines.load_all(settings.load(), Path(__file__).parent)
if MISTAKES:
    WRONG = WrongPipelines("wrong_pipelines")
