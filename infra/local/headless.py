"""Runs the DAG `train_llm` without scheduler and UI, one task after another, in a process of its own.

`run_dag` starts it; ``python -m infra.local.headless --run-id NAME --conf JSON`` is that process. It takes a home of
its own: the scheduler of an Airflow with the same database would take up the run as well.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from infra.local.processes import Guarded

SUCCESS, FAILED = 0, 1


def run_dag(
    conf: Mapping[str, Any],
    run_id: str,
    env: Mapping[str, str],
    tell: Callable[[], None] = lambda: None,
    dag_id: str = "train_llm",
) -> int:
    """Run a DAG and wait for it; its log is ``<home>/logs/<run_id>.log``.

    Args:
        conf: What a user would fill into the trigger form.
        run_id: Name of the run, in Airflow and in the lake.
        env: From `infra.local.airflow_env.environment`.
        tell: Called about every second, for whoever shows progress.
        dag_id: The DAG.

    Returns:
        0 if the run succeeded.
    """
    home = Path(env["AIRFLOW_HOME"])
    words = ["--dag", dag_id, "--run-id", run_id, "--conf", json.dumps(conf)]
    with Guarded(run_id, [sys.executable, "-m", "infra.local.headless", *words], env, home) as process:
        while (status := process.poll()) is None:
            time.sleep(1.0)
            tell()
    tell()
    return status


def main() -> int:
    """Run the DAG in this process; return the exit code."""
    parser = argparse.ArgumentParser("python -m infra.local.headless", description=__doc__.splitlines()[0])
    parser.add_argument("--dag", default="train_llm")
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--conf", type=json.loads, default={}, metavar="JSON")
    options = parser.parse_args()
    # Airflow reads its environment when it is imported, and takes seconds for it.
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - see above
    from airflow.models.dagrun import DagRun  # noqa: PLC0415 - see above
    from airflow.utils.db import initdb  # noqa: PLC0415 - see above

    initdb()
    dag: Any = DagBag().dags[options.dag]
    with mock.patch.object(DagRun, "generate_run_id", return_value=options.run_id):  # dag.test lets nobody choose it
        run = dag.test(run_conf=options.conf)
    return SUCCESS if run.state == "success" else FAILED


if __name__ == "__main__":
    sys.exit(main())
