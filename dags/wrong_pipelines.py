"""Show what is wrong with the files of pipelines, as an import error of Airflow: one line for each mistake.

Airflow shows import errors by file, and hides all DAGs of a file that has one. So the mistakes are reported here, and
`train_llm.py` makes the DAGs. This file never makes one.
"""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG

from jobs.errors import InputError
from nightjar import pipelines, settings


class WrongPipelines(DAG):
    """A DAG that Airflow refuses with the mistakes as its message, without a traceback."""

    def validate(self) -> None:
        """Raise InputError: Airflow calls this before it takes a DAG."""
        raise InputError("\n".join(MISTAKES))


_, MISTAKES = pipelines.load_all(settings.load(), Path(__file__).parent)
if MISTAKES:
    WRONG = WrongPipelines("wrong_pipelines")
