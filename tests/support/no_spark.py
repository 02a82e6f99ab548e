"""Steps without Spark: a spark-submit that runs the application in Python, without a JVM."""

import os
from pathlib import Path

_SPARK_SUBMIT = """#!/bin/sh
# Each option of a step has a value; what follows the options is the application.
while true; do
    case "$1" in
        --py-files) files=$2; shift 2 ;;
        --*) shift 2 ;;
        *) break ;;
    esac
done
sleep SECONDS
PYTHONPATH=$files exec "$PYSPARK_PYTHON" "$@" OPTIONS
"""


def no_spark(folder: Path, options: str = "", seconds: float = 0.0) -> dict[str, str]:
    """Write a package of Spark that has no JVM, and return the variables with which an embedded EMR finds it.

    Args:
        folder: Folder of the package.
        options: Options that the application gets in addition, such as ``--engine inline``, with which the real job
            needs no Spark.
        seconds: Seconds that an application takes to start. With servers, a step must not end before Airflow's worker
            has deferred its task, which then fails and is tried again.
    """
    package = folder / "pyspark"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").touch()
    script = package / "bin" / "spark-submit"
    script.write_text(_SPARK_SUBMIT.replace("OPTIONS", options).replace("SECONDS", f"{seconds:g}"))
    script.chmod(0o755)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}
