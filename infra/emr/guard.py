"""Runs one command and answers for all of its processes: when the guard has ended, every one of them has.

The embedded EMR starts each step under a guard, as ``python guard.py GRACE_SECONDS COMMAND...``, and holds the other
end of its standard input. A byte on it is an order: ``T`` sends TERM and, after the grace, KILL; ``K`` kills at once.
End of file means the same as ``T``: the operating system closes the pipe however the server dies, so a killed server
leaves no step behind, on Linux and macOS alike. What a finished command left running is ended in the same way.

Spark's workers have process groups of their own and outlive their parent for a while; a signal to one group misses
them. So the guard walks the tree of processes. On Linux it also adopts those whose parent has died, which makes the
tree complete; on macOS such a process is found only if its parent still lived when the order came.
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
_ROUND_SECONDS = 0.05


def main() -> int:
    """Runs the command to its end, or to an order.

    Returns:
        Its exit status; 128 + n if signal n ended it, 127 if it could not be started.
    """
    grace_seconds, argv = float(sys.argv[1]), sys.argv[2:]
    _adopt_orphans()
    wake = _listen()
    try:
        step = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        return 127
    order, status = _wait(step.pid, wake)
    late = _clear(step.pid, 0.0 if order == KILL else grace_seconds)
    status = late if status is None else status
    return 128 - status if status < 0 else status


def _adopt_orphans() -> None:
    """Becomes the parent of every descendant whose own parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _listen() -> int:
    """Returns a descriptor on which the number of each arriving signal can be read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reader


def _wait(pid: int, wake: int) -> tuple[bytes, int | None]:
    """Waits for the step's end or an order, whichever comes first: the order (or empty), and the step's status."""
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
    """Collects all that died; the status of `pid` if it is among them."""
    status = None
    with suppress(ChildProcessError):
        while (dead := os.waitpid(-1, os.WNOHANG))[0]:
            if dead[0] == pid:
                status = os.waitstatus_to_exitcode(dead[1])
    return status


def _clear(pid: int, grace_seconds: float) -> int:
    """Ends every descendant: TERM once to each, KILL when the grace is over. Returns the status of `pid`."""
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
        time.sleep(_ROUND_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
