"""Run the whole pipeline on this machine: ``make demo`` or ``make demo CORPUS="my text.txt"``. Needs no AWS account.

The demo starts the embedded EMR, runs the DAG ``train_llm`` without Airflow's servers, shows the progress of its steps,
and prints the results. All output is in the folder ``lake``. The next run reuses finished datasets.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from infra.airflow.environment import environment
from infra.airflow.headless import run_dag
from infra.demo.progress import ProgressDisplay
from infra.demo.sample_corpus import shakespeare
from infra.demo.summary import summary
from infra.emr.server import embedded_emr
from jobs.errors import InputError, NightjarError
from jobs.lake.layout import Lake
from jobs.lake.uri import to_uri

HOME = Path(".airflow/demo")
LAKE = Path("lake")
PRESET = "demo"
_LOG_TAIL_LINES = 20


def main() -> int:
    """Run the demo and return the exit code: 2 if the text cannot be used, 1 if the run failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return _demo()
    except NightjarError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("demo: interrupted; the next run reuses the datasets that are finished", file=sys.stderr)
        return 130


def _demo() -> int:
    corpus = Path(os.environ.get("CORPUS") or shakespeare(Path(".cache"))).absolute()
    if not corpus.exists():
        raise InputError(f"{corpus}: no such file or folder; choose a text: make demo CORPUS=path/to/text.txt")
    run = Lake(to_uri(str(LAKE))).run(time.strftime("demo-%Y%m%d-%H%M%S"))
    log = HOME / "logs" / f"{run.run_id}.log"
    print(f"corpus  {corpus}\nlake    {LAKE.absolute()}\nrun     {run.run_id}\nlog     {log.absolute()}\n", flush=True)
    with embedded_emr() as endpoint:
        env = environment(HOME.absolute(), run.lake_uri, endpoint)
        with ProgressDisplay(run, endpoint):
            code = run_dag({"corpus": to_uri(str(corpus)), "preset": PRESET}, run.run_id, env, log)
    if code:
        tail = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])
        print(f"demo: the run failed; the last lines of {log}:\n{tail}", file=sys.stderr)
        return code
    print(summary(run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
