"""The pip package of Spark, which runs the steps."""

import importlib.util
from pathlib import Path

from jobs.errors import InputError

NO_SPARK = "pyspark is not installed in the Python environment of the embedded EMR; run make setup"


def find_spark() -> Path | None:
    """Return the folder of the pip package of Spark without importing it, or None if it is not installed."""
    spec = importlib.util.find_spec("pyspark")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def require_spark() -> Path:
    """Return the folder of the pip package of Spark. Raise an `InputError` if it is not installed."""
    if (found := find_spark()) is None:
        raise InputError(NO_SPARK)
    return found
