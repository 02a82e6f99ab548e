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
PYTHONPATH=$files exec "$PYSPARK_PYTHON" "$@" OPTIONS
"""


def use_no_spark(folder: Path, options: str = "") -> None:
    """Have the embedded EMRs that this process starts find a package of Spark in `folder` that has no JVM.

    The application gets the `options` in addition, such as ``--engine inline``, with which the real job needs no Spark.
    """
    package = folder / "pyspark"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").touch()
    script = package / "bin" / "spark-submit"
    script.write_text(_SPARK_SUBMIT.replace("OPTIONS", options))
    script.chmod(0o755)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
