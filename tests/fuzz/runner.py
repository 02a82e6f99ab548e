"""Runs cases, each with a time limit, and judges them.

A worker process runs them, so that a crash of a library ends one case and not the fuzzing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jobs.errors import InputError, NightjarError
from jobs.lake.layout import MANIFEST
from tests.fuzz.registry import Case, FaultError, make_case

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 60.0
GOOD = ("done", "refused", "damaged")


@dataclass(frozen=True)
class Verdict:
    """The result of a case: done, refused, damaged, traceback, message, half-written, hang or crash."""

    case_id: str
    result: str
    description: str = ""
    detail: str = ""

    @property
    def is_good(self) -> bool:
        """True if the case ended as a user may expect."""
        return self.result in GOOD


@dataclass
class Summary:
    """The verdicts of many cases."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[Verdict] = field(default_factory=list)
    by_family: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self.counts[verdict.result] += 1
        self.by_family.setdefault(verdict.case_id.split(":")[1], Counter())[verdict.result] += 1
        if not verdict.is_good:
            self.bad.append(verdict)


def run_cases(
    case_ids: Sequence[str], on_bad: Callable[[Verdict], None] = lambda verdict: None, workers: int = 1
) -> Summary:
    """Run cases in this many worker processes and return their verdicts; `on_bad` receives each bad one."""
    summary, lock = Summary(), threading.Lock()

    def run_share(number: int) -> None:
        begin, end = (len(case_ids) * each // workers for each in (number, number + 1))
        left = list(case_ids[begin:end])
        while left:
            for verdict in _worker_verdicts(left):
                left.remove(verdict.case_id)
                with lock:
                    summary.add(verdict)
                    if not verdict.is_good:
                        on_bad(verdict)

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(run_share, range(workers)))
    return summary


def _worker_verdicts(case_ids: Sequence[str]) -> Iterator[Verdict]:
    """Yield the verdicts of a worker process, until it ends; if it dies, the last one is that of the case at fault."""
    with tempfile.TemporaryDirectory(prefix="nightjar-fuzz-") as folder:
        errors = Path(folder, "stderr")
        ids = Path(folder, "ids")
        ids.write_text("\n".join(case_ids), "utf-8")
        command = [sys.executable, "-m", "tests.fuzz.runner", str(ids)]
        started = case_ids[0]
        with (
            errors.open("wb") as sink,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=sink, text=True, cwd=ROOT, env={**os.environ, "TMPDIR": folder}
            ) as worker,
        ):
            assert worker.stdout is not None
            for line in worker.stdout:
                event = json.loads(line)
                if isinstance(event, str):
                    started = event
                else:
                    yield Verdict(**event)
        if worker.returncode:
            said = errors.read_text("utf-8", errors="replace")[-3000:]
            yield Verdict(started, "crash", detail=f"the worker process ended with {worker.returncode}: {said}")


def run_case(case_id: str) -> Verdict:
    """Make and run a case in this process, in a folder of its own that is removed."""
    folder = Path(tempfile.mkdtemp(prefix="case-"))
    before = Path.cwd()
    try:
        case = make_case(case_id, folder)
        os.chdir(folder)
        return judge(case_id, case)
    finally:
        os.chdir(before)
        for path, names, _ in os.walk(folder):
            for name in names:
                if not (inner := Path(path, name)).is_symlink():
                    inner.chmod(0o700)
        shutil.rmtree(folder)


def judge(case_id: str, case: Case, limit_seconds: float = LIMIT_SECONDS) -> Verdict:
    """Run a case and return its verdict."""
    error: NightjarError | None = None
    before = set(half_written(case.results)) if case.results else set()
    try:
        with _time_limit(limit_seconds):
            case.run()
    except NightjarError as expected:
        error = expected
    except FaultError as fault:
        return Verdict(case_id, fault.kind, case.description, fault.detail)
    except (_TimeLimitError, Exception) as finding:  # noqa: BLE001 - any error that is not ours is one
        kind = "hang" if isinstance(finding, _TimeLimitError) else "traceback"
        return Verdict(case_id, kind, case.description, traceback.format_exc(limit=-8))
    if error is None:
        return Verdict(case_id, "done", case.description)
    message = str(error)
    if fault := _fault_of(message):
        return Verdict(case_id, "message", case.description, f"{fault}: {message!r}")
    if case.results and (left := set(half_written(case.results)) - before):
        return Verdict(case_id, "half-written", case.description, f"{', '.join(sorted(left))} after {message}")
    return Verdict(case_id, "refused" if isinstance(error, InputError) else "damaged", case.description, message)


def half_written(lake: Path) -> list[str]:
    """Return the names of temporary files and of files in datasets without a manifest."""
    found = []
    for path in sorted(lake.rglob("*")):
        name = path.relative_to(lake).as_posix()
        in_dataset = name.startswith("datasets/") and name.count("/") > 2
        dataset = lake.joinpath(*name.split("/")[:3])
        if path.is_file() and (path.name.startswith(".") or (in_dataset and not (dataset / MANIFEST).exists())):
            found.append(name)
    return found


def _fault_of(message: str) -> str:
    """Return what is wrong with an error's message, or ""."""
    if not message or "\n" in message:
        return "not one line"
    if len(message) > 2000:
        return f"{len(message)} characters"
    try:
        message.encode()
    except UnicodeEncodeError:
        return "cannot be printed"
    return ""


class _TimeLimitError(BaseException):
    """Not an Exception, so that no reader catches it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TimeLimitError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _work(ids: Path) -> None:
    """Run the cases of a file, and write events to standard output."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries may print
    for case_id in ids.read_text("utf-8").splitlines():
        events.write(json.dumps(case_id) + "\n")
        events.flush()
        verdict = run_case(case_id)
        shown = Verdict(case_id, verdict.result) if verdict.is_good else verdict
        events.write(json.dumps(asdict(shown)) + "\n")
        events.flush()


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
