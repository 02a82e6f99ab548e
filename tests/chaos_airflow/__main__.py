"""``make chaos-airflow``: disturb each distinct call of a run to EMR and S3 in turn; print a table of what is left.

The results are in a file of JSON lines for each DAG. The same command continues where it was stopped; after a change of
the code, `--again` forgets them. The DAG `plain` is for comparison: what it loses is no error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from bench.table import show
from tests.chaos_airflow.headless import Bench, bench
from tests.chaos_airflow.judge import Result
from tests.chaos_airflow.live import LiveBench, live_bench
from tests.chaos_airflow.plan import DAEMONS, FAULTS, INTERVENTIONS, Call, Case, cases_of, sample
from tests.chaos_airflow.subjects import SUBJECTS, Subject
from tests.support.airflow import isolate
from tests.support.no_spark import no_spark

JUDGED = ("train_llm",)
"""The DAGs for which a broken promise is an error."""
DISTURBANCES = (*FAULTS, *INTERVENTIONS, *DAEMONS)
RESULTS = Path(".cache/chaos-airflow")


def main() -> int:
    """Run the cases that have no result yet, and print the table; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser("python -m tests.chaos_airflow", description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="number of cases, run anew; 0 runs all")
    parser.add_argument("--seed", type=int, default=0, help="decides which cases are in the sample")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder of the results (default: {RESULTS})")
    parser.add_argument("--dag", action="append", choices=SUBJECTS, help="repeat it for several; default: all")
    parser.add_argument("--only", action="append", choices=DISTURBANCES, help="repeat it for several; default: all")
    parser.add_argument("--again", action="store_true", help="forget earlier results")
    options = parser.parse_args()
    isolate()
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
    options.results.mkdir(parents=True, exist_ok=True)
    is_bad = False
    for name in options.dag or SUBJECTS:
        path = options.results / (f"sample-{name}.jsonl" if options.sample else f"{name}.jsonl")
        if options.again or options.sample:
            path.unlink(missing_ok=True)
        results = disturb(SUBJECTS[name], path, options)
        is_bad |= name in JUDGED and any(result.is_bad for result in results)
    return 1 if is_bad else 0


def disturb(subject: Subject, path: Path, options: argparse.Namespace) -> list[Result]:
    """Run the cases of a DAG that have not struck by the file `path`, print the table, and return all results."""
    done = read_results(path)
    with tempfile.TemporaryDirectory(prefix="nightjar-chaos-") as folder:
        os.environ |= no_spark(Path(folder, "no-spark"))
        place = Place(subject, Path(folder), path)
        calls = place.record()
        cases = sample(cases_of(calls, options.only or DISTURBANCES), options.sample, options.seed)
        left = unfinished(cases, done)
        try:
            place.execute([case for case in left if not case.needs_servers], done)
            place.execute([case for case in left if case.needs_servers], done)
        finally:  # also if it is stopped
            results = [done[case.name] for case in cases if case.name in done]
            print_table(f"{subject.dag_id}: {len(calls)} distinct calls of a run, disturbed", cases, results)
    return results


def unfinished(cases: Sequence[Case], done: Mapping[str, Result]) -> list[Case]:
    """Return the cases without a result, and those whose disturbance has not struck, which says nothing."""
    return [case for case in cases if case.name not in done or not done[case.name].struck]


class Place:
    """A folder in which the cases of a DAG run, and the file of their results."""

    def __init__(self, subject: Subject, folder: Path, results: Path) -> None:
        self._subject = subject
        self._folder = folder
        self._results = results

    def record(self) -> list[Call]:
        """Return the distinct calls of an undisturbed run."""
        with bench(self._subject, self._folder) as place:
            return place.record()

    def execute(self, cases: Sequence[Case], done: dict[str, Result]) -> None:
        """Run cases that all need a live Airflow, or none of them, and put the results into `done`, by case."""
        if not cases:
            return
        opened: AbstractContextManager[Bench | LiveBench]
        opened = (live_bench if cases[0].needs_servers else bench)(self._subject, self._folder)
        with opened as place:
            for number, case in enumerate(cases, 1):
                done[case.name] = result = place.execute(case)
                append(self._results, asdict(result))
                end = "green" if result.green else f"red: {result.cause}"
                flags = f"{'' if result.struck else 'NOT STRUCK '}{'BAD ' if result.is_bad else ''}"
                print(f"{number}/{len(cases)} {case.name}: {flags}{end} ({result.seconds:.0f} s)", flush=True)


def read_results(path: Path) -> dict[str, Result]:
    """Return the results by case; a line that was cut off by a kill is left out."""
    done: dict[str, Result] = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        done[values["case"]] = Result(**values)
    return done


def append(path: Path, values: dict[str, object]) -> None:
    """Append a line to the results."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def print_table(title: str, cases: Sequence[Case], results: Sequence[Result]) -> None:
    """Print one row for each disturbance, and what was bad."""
    rows = []
    for disturbance in dict.fromkeys(case.disturbance for case in cases):
        own = [result for result in results if result.disturbance == disturbance]
        planned = sum(case.disturbance == disturbance for case in cases)
        failed = [result for result in own if not result.green]
        figures = (
            planned,
            len(own),
            sum(result.struck for result in own),
            len(own) - len(failed),
            len(failed),
            sum(result.continued or False for result in failed),
            sum(result.alive > 0 for result in own),
            sum(result.alive_after_reaper for result in own),
            sum(result.green_and_alive for result in own),
            max((result.clusters_at_once for result in own), default=0),
            max((result.steps_at_once for result in own), default=0),
            sum(result.completed_twice for result in own),
            sum(result.incomplete for result in own),
        )
        rows.append((disturbance, *map(str, figures)))
    header = ("disturbance", "planned", "run", "struck", "green", "red", "went on", "alive", "after reaper",
              "green and alive", "clusters at once", "attempts at once", "done twice", "half-written")  # fmt: skip
    show(title, header, rows)
    for result in results:
        if result.is_bad:
            print(f"  BAD: {result}")


if __name__ == "__main__":
    sys.exit(main())
