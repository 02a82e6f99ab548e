"""Run a DAG, by default `train_llm`, without a scheduler or UI, one task after another.

`run_dag` starts this module as a process: ``python -m infra.airflow.headless --run-id NAME --conf JSON``. The run needs
its own Airflow home, because a scheduler with the same database would run the tasks, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from infra.airflow.processes import GuardedProcess

if TYPE_CHECKING:
    from airflow.sdk import Context

DAG_ID = "train_llm"


def run_dag(conf: Mapping[str, Any], run_id: str, environ: Mapping[str, str], log: Path, dag_id: str = DAG_ID) -> int:
    """Run a DAG in a process of its own and wait for it.

    Args:
        conf: The values of the trigger form.
        run_id: Name of the run, in Airflow and in the lake.
        environ: Environment of the process, from `infra.airflow.environment.environment`.
        log: File for the output of Airflow and the tasks. The cause of a failure is at its end.
        dag_id: The DAG.

    Returns:
        0 if the run succeeded, 2 if it failed because of the user's input or configuration, 1 after any other failure.
    """
    command = [sys.executable, "-m", "infra.airflow.headless", "--dag", dag_id]
    command += ["--run-id", run_id, "--conf", json.dumps(conf)]
    with GuardedProcess("the DAG", command, environ, log.absolute()) as process:
        return process.wait()


def main() -> int:
    """Run the DAG that the command line names, in this process. Return the exit code."""
    parser = argparse.ArgumentParser("python -m infra.airflow.headless", description=__doc__.splitlines()[0])
    parser.add_argument("--dag", default=DAG_ID, help="id of the DAG (default: %(default)s)")
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--conf", type=json.loads, default={}, metavar="JSON")
    options = parser.parse_args()
    return run_here(options.dag, options.run_id, options.conf)


def run_here(dag_id: str, run_id: str, conf: Mapping[str, Any]) -> int:
    """Run a DAG in this process, which must have the variable AIRFLOW_HOME. Return the same exit code as `run_dag`."""
    # Imported here because Airflow takes seconds to import, and the process that calls `run_dag` does not need it.
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - see above
    from airflow.models.dagrun import DagRun  # noqa: PLC0415 - see above
    from airflow.sdk.exceptions import ParamValidationError  # noqa: PLC0415 - see above
    from airflow.utils.db import initdb  # noqa: PLC0415 - see above

    from nightjar.errors import UserError  # noqa: PLC0415 - see above

    initdb()
    dag: Any = DagBag().dags[dag_id]
    failures: list[tuple[str, str | BaseException | None]] = []

    def record(context: Context) -> None:
        failures.append((context["ti"].task_id, context["exception"]))

    for task in dag.tasks:
        task.on_failure_callback = [*task.on_failure_callback, record]
    try:
        # dag.test has no parameter for the run's id.
        with mock.patch.object(DagRun, "generate_run_id", return_value=run_id):
            run = dag.test(run_conf=conf)
    except ParamValidationError as error:
        sys.stderr.write(f"{str(error).splitlines()[0]}\n")
        return UserError.exit_code
    if run.state == "success":
        return 0
    sys.stderr.writelines(f"{name}: {cause}\n" for name, cause in failures)
    return UserError.exit_code if any(isinstance(cause, UserError) for _, cause in failures) else 1


if __name__ == "__main__":
    sys.exit(main())
