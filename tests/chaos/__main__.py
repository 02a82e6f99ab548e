"""``make chaos``: kill workers, executors and drivers of trainings on both engines; print a table of the results."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.table import show
from tests.chaos.harness import Case, Chaos, Outcome

RUNS = {
    ("allreduce", "inline", "worker"): 3,
    ("allreduce", "inline", "driver"): 3,
    ("average", "inline", "driver"): 2,
    ("diloco", "inline", "driver"): 2,
    ("allreduce", "spark", "worker"): 2,
    ("allreduce", "spark", "executor"): 2,
    ("allreduce", "spark", "driver"): 2,
    ("average", "spark", "worker"): 1,
    ("average", "spark", "executor"): 1,
    ("average", "spark", "driver"): 1,
    ("diloco", "spark", "worker"): 1,
    ("diloco", "spark", "executor"): 1,
    ("diloco", "spark", "driver"): 1,
}


def main() -> int:
    """Run all cases and print the table; return 1 if a run has a wrong result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("inline", "spark"), help="run the cases of this engine only")
    parser.add_argument("--seed", type=int, default=0, help="decides when processes are killed")
    options = parser.parse_args()
    rows, bad = [], 0
    with tempfile.TemporaryDirectory(prefix="nightjar-chaos-") as folder:
        chaos = Chaos(Path(folder))
        for (strategy, engine, victim), times in RUNS.items():
            for number in range(times if engine == (options.engine or engine) else 0):
                case = Case(strategy, engine, victim, options.seed + number)
                expected = chaos.expected(case)
                outcome = chaos.outcome(case)
                is_good = judge(case, outcome, expected)
                bad += not is_good
                rows.append(row(case, outcome, expected, is_good))
                print(" ".join(rows[-1]), flush=True)
    header = ("run", "victim", "intervals", "checkpoint", "resumed", "restarts", "drivers", "weights", "loss", "s")
    show("Killed processes", (*header, "verdict"), rows)
    print(f"  {len(rows)} runs, {bad} bad")
    return 1 if bad else 0


def judge(case: Case, outcome: Outcome, expected: Outcome) -> bool:
    """Return True if a run has the results of the undisturbed one and lost no checkpoint.

    All-reduce must give equal weights; rounds must reach a validation loss within 1%.
    """
    lost = outcome.resumed_from is not None and outcome.resumed_from < (outcome.checkpoint_at_kill or 0)
    same = outcome.weights == expected.weights or case.strategy != "allreduce"
    near = abs(outcome.stats["valid_loss"] / expected.stats["valid_loss"] - 1) <= 0.01
    return outcome.checkpoint_at_kill is not None and outcome.samples == expected.samples and same and near and not lost


def row(case: Case, outcome: Outcome, expected: Outcome, is_good: bool) -> tuple[str, ...]:
    """Return the table row of a case."""
    loss = outcome.stats["valid_loss"] / expected.stats["valid_loss"] - 1
    return (
        f"{case.strategy} {case.engine} {case.seed}", case.victim, f"{case.moment:.1f}",
        str(outcome.checkpoint_at_kill), str(outcome.resumed_from), str(outcome.stats["restarts"]),
        str(outcome.drivers), "equal" if outcome.weights == expected.weights else "other", f"{loss:+.3%}",
        f"{outcome.seconds:.0f}", "good" if is_good else "BAD",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
