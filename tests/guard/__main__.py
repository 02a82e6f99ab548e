"""``make guard BASE=<commit>``: the results of a commit's tree beside those of today's, on both engines; a table.

Exit codes: 0 all results are equal; 1 one differs, or a run failed; 2 the arguments are wrong.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.table import show
from tests.guard.compare import Comparison, compare
from tests.guard.runs import CASES, Tree, checkout, resolve_commit, select, write_corpus

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the selected cases in both trees, compare their results, and return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worktree is removed
    parser = argparse.ArgumentParser(prog="make guard", usage=argparse.SUPPRESS)
    parser.add_argument("base", metavar="BASE=<commit>")
    parser.add_argument("--only", default="", help="runs, cases or engines, divided by commas or spaces")
    parser.add_argument("--keep", type=Path, help="new folder, in which the lakes and logs are kept")
    options = parser.parse_args()
    try:
        commit, names = resolve_commit(ROOT, options.base), select(options.only.replace(",", " ").split())
        if options.keep and options.keep.exists():
            raise ValueError(f"{options.keep} exists already; KEEP names a new folder")
    except ValueError as error:
        parser.error(str(error))
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nightjar-guard-"))).resolve()
        folder = (options.keep or temporary / "lakes").absolute()
        base_root = stack.enter_context(checkout(ROOT, commit, temporary / "tree"))
        trees = {"base": Tree(base_root, folder / "base"), "today": Tree(ROOT, folder / "today")}
        for tree in trees.values():
            tree.check_imports()
        corpus = write_corpus(ROOT, folder / "corpus")
        rows = [row for name in names for row in guard(name, trees, corpus)]
    show(f"Results of {commit[:12]} and of today", ("run", "what", "verdict", "first difference"), rows)
    different = sum(verdict != "equal" for _, _, verdict, _ in rows)
    print(f"  {len(rows)} comparisons, {different} different")
    return 1 if different else 0


def guard(name: str, trees: dict[str, Tree], corpus: Path) -> list[tuple[str, str, str, str]]:
    """Run one case in both trees; return the table's rows."""
    comparisons, times = [], []
    for side, tree in trees.items():
        started = time.monotonic()
        if failure := tree.run(name, corpus):
            comparisons.append(Comparison(f"run of {side}", failure))
        times.append(f"{side} {time.monotonic() - started:.0f} s")
    if not comparisons:
        lakes = [tree.lake(name) for tree in trees.values()]
        comparisons = compare(*lakes, has_embeddings=CASES[name.partition("/")[0]].has_embeddings)
    rows = [(name, what, "DIFFERENT" if bad else "equal", bad or note) for what, bad, note in comparisons]
    print(f"{name} ({', '.join(times)})", *(f"{what} {verdict}" for _, what, verdict, _ in rows), sep="  ", flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
