"""A deadline for each step of a worker, kept by a small process of its own: a worker that hangs cannot end itself.

The worker tells its watchdog through a pipe what it begins. If nothing comes for too long, the watchdog makes the
worker write its stacks (faulthandler does so in a signal's handler, also where Python itself is stuck; a stopped
process is woken for it), reports them, and kills the worker: so the engine loses it, and training resumes from a
checkpoint. One that only waits for the others is reported at once but killed later: the one that hangs goes first.

This file is also the watchdog's program. It is handed to Python as text, since the package may lie in a zip file; so it
needs nothing but the standard library.
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
    """The worker's end of the pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def beat(self, doing: str) -> None:
        """Say that the worker lives, and what it does from now on."""
        with suppress(OSError):  # without a watchdog there is no deadline, but training goes on
            os.write(self._pipe, f"{doing}\n".encode())

    def beat_waiting(self, doing: str) -> None:
        """Say that the worker lives, and in what it waits for others from now on."""
        self.beat(_WAITING + doing)


@contextmanager
def watched(rank: int, timeout_seconds: float, report: str | None) -> Iterator[Watchdog]:
    """Have a watchdog kill this process when it does not beat for `timeout_seconds`.

    `report` is the file in which its engine looks for a lost worker's last words; without one they go to stderr.
    """
    with tempfile.NamedTemporaryFile(prefix="nightjar-stacks-") as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks.file, all_threads=True)
        arguments = [str(os.getpid()), str(rank), str(timeout_seconds), stacks.name, report or ""]
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


def _main(pid: int, rank: int, timeout_seconds: float, stacks: Path, report: Path | None) -> None:
    """The watchdog's program."""
    doing = "its start"
    while (heard := _listen(timeout_seconds)) != "":
        if heard:
            doing = heard
            continue
        stopped = _is_stopped(pid)
        waits = doing.startswith(_WAITING) and not stopped
        about = f"pid {pid} on {socket.gethostname()}{', stopped by a signal' if stopped else ''}"
        verb = "waits" if waits else "hangs"
        text = f"worker {rank} {verb}: nothing for {timeout_seconds:g} s since {doing} ({about})\n{_dump(pid, stacks)}"
        sys.stderr.write(text)
        sys.stderr.flush()
        if waits and (heard := _listen(GRACE_SECONDS)) is not None:
            if not heard:
                return
            doing = heard
            continue
        try:
            if report:
                report.write_text(text)
        finally:
            os.kill(pid, signal.SIGKILL)
        return


def _listen(seconds: float) -> str | None:
    """What the worker said last: "" if it has left, None if it was silent for `seconds`.

    Ticks are counted, not the clock, since this process may be stopped together with the worker.
    """
    for _ in range(max(1, round(seconds / TICK_SECONDS))):
        if select.select([sys.stdin], [], [], TICK_SECONDS)[0]:
            lines = os.read(sys.stdin.fileno(), 1 << 16).decode().splitlines()
            return lines[-1] if lines else ""
    return None


def _dump(pid: int, stacks: Path) -> str:
    """The stacks of all threads of the worker."""
    known = stacks.stat().st_size
    os.kill(pid, signal.SIGUSR1)
    os.kill(pid, signal.SIGCONT)
    time.sleep(DUMP_SECONDS)
    return stacks.read_text()[known:] or "(it did not answer)\n"


def _is_stopped(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


if __name__ == "__main__":
    _pid, _rank, _timeout, _stacks, _report = sys.argv[1:]
    _main(int(_pid), int(_rank), float(_timeout), Path(_stacks), Path(_report) if _report else None)
