"""Run one command and end all of its processes: none is left when the guard exits.

The embedded EMR starts each step as ``python guard.py GRACE_SECONDS COMMAND...`` with a pipe as standard input. A byte
on the pipe requests the end of the step: ``T`` sends SIGTERM and, after the grace period, SIGKILL; ``K`` sends SIGKILL
at once. End of file means ``T``. The operating system closes the pipe when the server ends, whatever the reason. So a
killed server leaves no step running, on Linux and on macOS. Processes that a finished command left running are ended in
the same way.

A signal to the process group would not be enough: Spark's workers have process groups of their own and outlive their
parent for a while. So the guard walks the process tree. On Linux it is also the subreaper of orphaned descendants,
which makes the tree complete. On macOS, an orphan is only found if its parent was still running when the guard looked.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

TERMINATE, KILL = b"T", b"K"
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05


def main() -> int:
    """Run the command until it ends or its end is requested.

    Returns:
        The command's exit status: 128 + n if signal n ended the command, 127 if it could not be started.
    """
    grace_seconds, argv = float(sys.argv[1]), sys.argv[2:]
    _adopt_orphans()
    wake = _listen()
    try:
        step = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        return 127
    request, status = _wait(step.pid, wake)
    final_status = _end_descendants(step.pid, 0.0 if request == KILL else grace_seconds)
    status = final_status if status is None else status
    return 128 - status if status < 0 else status


def _adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _listen() -> int:
    """Catch signals. Return a file descriptor from which the number of each signal that arrives can be read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reader


def _wait(pid: int, wake: int) -> tuple[bytes, int | None]:
    """Wait until the step ends or its end is requested.

    Return (b"", exit status) if the step ended, and (the request, None) if its end is requested.
    """
    while True:
        ready, _, _ = select.select([sys.stdin.fileno(), wake], [], [])
        if wake in ready:
            signals = os.read(wake, 64)
            status = _reap(pid)
            if status is not None:
                return b"", status
            if set(signals) - {signal.SIGCHLD}:
                return TERMINATE, None
        if sys.stdin.fileno() in ready:
            return os.read(sys.stdin.fileno(), 1) or TERMINATE, None


def _reap(pid: int) -> int | None:
    """Reap all children that have exited, and return the status of `pid` if it is one of them."""
    status = None
    with suppress(ChildProcessError):
        while (dead := os.waitpid(-1, os.WNOHANG))[0]:
            if dead[0] == pid:
                status = os.waitstatus_to_exitcode(dead[1])
    return status


def _end_descendants(pid: int, grace_seconds: float) -> int:
    """End every descendant: SIGTERM once, SIGKILL after the grace period. Return the status of `pid`."""
    deadline = time.monotonic() + grace_seconds
    seen: set[psutil.Process] = set()
    status = 0
    while True:
        reaped = _reap(pid)
        status = status if reaped is None else reaped
        new = set(psutil.Process().children(recursive=True)) - seen
        seen = {process for process in seen | new if process.is_running()}
        if not seen:
            return status
        late = time.monotonic() >= deadline
        for process in seen if late else new:
            with suppress(psutil.NoSuchProcess):
                process.kill() if late else process.terminate()
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
