"""A deadline for each step of a worker. A separate process enforces it, since a worker that hangs cannot end itself.

The worker sends a line through a pipe whenever it begins an activity. When no line arrives for too long, the watchdog
makes the worker write its stacks, reports them, and kills the worker. A worker that only waits for others is reported
at once but killed later, so that the worker that hangs is killed first.

faulthandler writes the stacks in a signal handler, so the stacks are written even while Python itself is stuck. A
worker that was stopped by a signal is continued, so that the handler runs.

This file is also the program of the watchdog process. Python receives the program as text, since the package may be in
a zip file. So this file imports only the standard library.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pkgutil import get_data

TICK_SECONDS = 0.25
DUMP_SECONDS = 1.0
GRACE_SECONDS = 10.0
_WAITING = "waiting for the others in "


class Watchdog:
    """The worker's end of the pipe to the watchdog process."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def beat(self, activity: str) -> None:
        """Report that the worker is alive and starts `activity`."""
        with suppress(OSError):  # without a watchdog there is no deadline, but training goes on
            os.write(self._pipe, f"{activity}\n".encode())

    def beat_waiting(self, activity: str) -> None:
        """Report that the worker is alive and starts to wait for the other workers in `activity`."""
        self.beat(_WAITING + activity)


@contextmanager
def watch(rank: int, timeout_seconds: float, crash_report: str | None) -> Iterator[Watchdog]:
    """Start a watchdog that kills this process if it does not call `beat` for `timeout_seconds` seconds.

    The watchdog writes to stderr, and to the file `crash_report`, which the engine reads when it loses a worker.
    """
    with tempfile.NamedTemporaryFile(prefix="nightjar-stacks-") as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks.file, all_threads=True)
        arguments = [str(os.getpid()), str(rank), str(timeout_seconds), stacks.name, crash_report or ""]
        source = get_data(__name__, Path(__file__).name)
        assert source is not None
        command = [sys.executable, "-I", "-S", "-c", source.decode(), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)  # training never waits for its watchdog
        try:
            yield Watchdog(process.stdin.fileno())
        finally:
            process.stdin.close()
            process.kill()
            process.wait()
            faulthandler.unregister(signal.SIGUSR1)


def _main(pid: int, rank: int, timeout_seconds: float, stacks: Path, crash_report: Path | None) -> None:
    """Run the watchdog process until the worker exits or is killed."""
    activity = "its start"
    while (received := _receive(timeout_seconds)) != "":
        if received:
            activity = received
            continue
        stopped = _is_stopped(pid)
        waits = activity.startswith(_WAITING) and not stopped
        process = f"pid {pid} on {socket.gethostname()}{', stopped by a signal' if stopped else ''}"
        report = (
            f"worker {rank} {'waits' if waits else 'hangs'}: no progress for {timeout_seconds:g} s since {activity}"
            f" ({process})\n{_dump(pid, stacks)}"
        )
        sys.stderr.write(report)
        sys.stderr.flush()
        if waits and (received := _receive(GRACE_SECONDS)) is not None:
            if not received:
                return
            activity = received
            continue
        try:
            if crash_report:
                crash_report.write_text(report)
        finally:
            os.kill(pid, signal.SIGKILL)
        return


def _receive(seconds: float) -> str | None:
    """Return the latest line from the worker. Return "" if the worker has exited.

    Return None if no line arrived in `seconds` seconds. The time is counted in ticks and not read from a clock, since
    this process may be stopped together with the worker.
    """
    for _ in range(max(1, round(seconds / TICK_SECONDS))):
        if select.select([sys.stdin], [], [], TICK_SECONDS)[0]:
            lines = os.read(sys.stdin.fileno(), 1 << 16).decode().splitlines()
            return lines[-1] if lines else ""
    return None


def _dump(pid: int, stacks: Path) -> str:
    size_before = stacks.stat().st_size
    os.kill(pid, signal.SIGUSR1)
    os.kill(pid, signal.SIGCONT)
    time.sleep(DUMP_SECONDS)
    return stacks.read_text()[size_before:] or "(the worker did not write its stacks)\n"


def _is_stopped(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


if __name__ == "__main__":
    _pid, _rank, _timeout, _stacks, _report = sys.argv[1:]
    _main(int(_pid), int(_rank), float(_timeout), Path(_stacks), Path(_report) if _report else None)
