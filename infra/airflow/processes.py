"""The processes of a local Airflow. Each is started by a guard: a parent process that ends it and its descendants.

The guard ends them when the pipe from this process to the guard is closed. If this process is killed, the operating
system closes that pipe.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from infra.airflow.environment import PROJECT_ROOT
from infra.emr import guard
from jobs.errors import NightjarError

GRACE_SECONDS = 15.0
_LOG_TAIL_LINES = 15


class ProcessError(NightjarError):
    """A process ended unexpectedly, or was not ready in time. The message contains the end of the process's log."""


class GuardedProcess:
    """A process that runs for the duration of a `with` block. Its output goes to a log file.

    A guard starts the process (see the docstring of this module). At the end of the block, the guard ends the process
    and its descendants.
    """

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [sys.executable, "-I", guard.__file__, str(GRACE_SECONDS), *command]
        self._env = dict(env)

    def __enter__(self) -> Self:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=PROJECT_ROOT,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must only reach this process, which then stops the others in order
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # the process has ended already
                self._process.stdin.close()
        try:
            self._process.wait(GRACE_SECONDS * 2)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def wait(self) -> int:
        """Wait for the end of the process and return its exit status."""
        return self._process.wait()

    def descendants(self) -> list[psutil.Process]:
        """Return the process and its descendants. The guard, which started the process, is not in the list."""
        found: list[psutil.Process] = psutil.Process(self._process.pid).children(recursive=True)
        return found

    def check_running(self) -> None:
        """Raise `ProcessError` if the process has ended."""
        if (status := self._process.poll()) is not None:
            raise ProcessError(f"{self.name} ended with exit status {status}; {self._log_tail()}")

    def wait_for_success(self, timeout_seconds: float) -> None:
        """Wait for the end of the process. Raise `ProcessError` if its exit status is not 0, or after the timeout."""
        try:
            status = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} took longer than {timeout_seconds:.0f} s; {self._log_tail()}") from None
        if status != 0:
            raise ProcessError(f"{self.name} failed with exit status {status}; {self._log_tail()}")

    def has_logged(self, text: str) -> bool:
        """Return whether the log contains `text`."""
        return text in self.log_path.read_text("utf-8", errors="replace")

    def _log_tail(self) -> str:
        lines = self.log_path.read_text("utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"the last lines of {self.log_path}:", *lines])


def wait_until(
    condition: Callable[[], bool], name: str, processes: Iterable[GuardedProcess], timeout_seconds: float
) -> None:
    """Wait until `condition` returns True.

    Raises:
        ProcessError: if one of `processes` has ended, or after the timeout. `name` is a clause, such as "Airflow is
            not healthy", with which the message at the timeout starts.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        for process in processes:
            process.check_running()
        if time.monotonic() > deadline:
            raise ProcessError(f"{name} after {timeout_seconds:.0f} s; see the logs in the Airflow home")
        time.sleep(0.3)
