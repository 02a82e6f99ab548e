"""Processes that a local Airflow is made of: each under a guard that ends it with all that it started.

The guard also ends them when this process dies in whatever way: the operating system then closes its pipe.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.airflow.environment import PROJECT_ROOT
from infra.emr import guard
from jobs.errors import InputError, NightjarError

GRACE_SECONDS = 15.0
_TAIL_LINES = 15


class ProcessError(NightjarError):
    """A process ended unexpectedly or was not ready in time. The message has the end of its log."""


class Guarded:
    """A process and its descendants, as long as a `with` lasts; their output goes to a log."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [sys.executable, "-I", guard.__file__, str(GRACE_SECONDS), *command]
        self._env = dict(env)

    def __enter__(self) -> Self:
        """Start it."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=PROJECT_ROOT,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for us; we then end it in order
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, and wait until it has ended."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended by itself
                self._process.stdin.close()
        try:
            self._process.wait(GRACE_SECONDS * 2)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def wait(self) -> int:
        """Wait until it has ended; return its exit status."""
        return self._process.wait()

    def check(self) -> None:
        """Raise ProcessError if it has ended."""
        if (status := self._process.poll()) is not None:
            raise ProcessError(f"{self.name} ended with exit status {status}; {self._tail()}")

    def succeed(self, limit_seconds: float) -> None:
        """Wait until it has ended; raise ProcessError unless with exit status 0."""
        try:
            status = self._process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} took longer than {limit_seconds:.0f} s; {self._tail()}") from None
        if status != 0:
            raise ProcessError(f"{self.name} failed with exit status {status}; {self._tail()}")

    def said(self, text: str) -> bool:
        """Whether `text` stands in its log."""
        return text in self.log_path.read_text("utf-8", errors="replace")

    def _tail(self) -> str:
        lines = self.log_path.read_text("utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join([f"the end of {self.log_path}:", *lines])


def wait_for(is_there: Callable[[], bool], what: str, parts: Iterable[Guarded], limit_seconds: float) -> None:
    """Wait until `is_there`.

    Raises:
        ProcessError: if one of `parts` has ended, or the time is over.
    """
    deadline = time.monotonic() + limit_seconds
    while not is_there():
        for part in parts:
            part.check()
        if time.monotonic() > deadline:
            raise ProcessError(f"not {what} after {limit_seconds:.0f} s; see the logs in the home")
        time.sleep(0.3)


def free_port(port: int) -> int:
    """A port of loopback that is free: `port` itself, or for 0 any.

    Raises:
        InputError: if it is taken.
    """
    try:
        with socket.create_server(("127.0.0.1", port)) as server:
            free: int = server.getsockname()[1]
            return free
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror}); choose another, or 0 for any") from None
