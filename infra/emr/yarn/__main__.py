"""Check that this machine can run YARN, and get Hadoop's jars: ``python -m infra.emr.yarn``."""

from __future__ import annotations

import sys

from infra.emr.spark_home import require_spark
from infra.emr.yarn import cluster
from jobs.errors import NightjarError


def main() -> int:
    """Return 0 if YARN can start here. Otherwise print the reason, and return the error's exit code."""
    try:
        found = cluster.check(require_spark())
    except NightjarError as error:
        sys.stderr.write(f"yarn: {error}\n")
        return error.exit_code
    sys.stdout.write(f"yarn: this machine can run YARN, and has all {len(found)} jars of Hadoop\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
