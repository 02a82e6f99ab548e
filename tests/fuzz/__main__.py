"""``make fuzz``: run random inputs, most of them damaged, through the readers; print a table of the results."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.table import show
from tests.fuzz.registry import case_ids, families
from tests.fuzz.runner import GOOD, Verdict, run_case, run_cases


def main() -> int:
    """Run the cases and print the table; return 1 if one is bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other cases")
    parser.add_argument("--only", default="", choices=["", *families()], help="a single family")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="number of processes")
    parser.add_argument("--case", metavar="ID", help="run one case in this process and print everything")
    options = parser.parse_args()
    if options.case:
        with tempfile.TemporaryDirectory() as folder:
            tempfile.tempdir = folder
            print_verdict(run_case(options.case))
        return 0
    started = time.monotonic()
    summary = run_cases(case_ids(options.seed, options.cases, options.only), print_verdict, options.workers)
    columns = [*GOOD, *sorted(set(summary.counts) - set(GOOD))]
    rows = [[name, *(f"{counts[key]:,}" for key in columns)] for name, counts in sorted(summary.by_family.items())]
    show("Random inputs", ("family", *columns), rows)
    tracebacks = sum(summary.counts[kind] for kind in ("traceback", "crash", "hang", "message"))
    print(f"  {options.cases:,} cases in {time.monotonic() - started:.0f} s, {tracebacks} tracebacks,"
          f" {summary.counts['half-written']} half-written results")  # fmt: skip
    for verdict in summary.bad[:50]:
        print(f"  failed: {verdict.case_id}: {verdict.result}; python -m tests.fuzz --case {verdict.case_id}")
    return 1 if summary.bad else 0


def print_verdict(verdict: Verdict) -> None:
    """Print a verdict with all that is known about the case."""
    print(f"{verdict.case_id}: {verdict.result}: {verdict.description[:1000]}\n{verdict.detail[-3000:]}", flush=True)


if __name__ == "__main__":
    Path("tests/fuzz").resolve(strict=True)  # run from the root of the project
    sys.exit(main())
