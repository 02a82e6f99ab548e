"""The service as a process of its own, started by its command."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.waiting import until

START_SECONDS = 60


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    process: subprocess.Popen[str]
    url: str
    """The base URL of clients, which ends in ``/v1``."""
    log: Path

    def metric(self, name: str) -> float:
        """Return the value of a metric, or the sum over its labels if none are given."""
        lines = httpx.get(f"{self.url.removesuffix('/v1')}/metrics").text.splitlines()
        found = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        assert found, name
        return sum(found)

    def wait_for(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        until(lambda: self.metric(name) == value, what=f"{name} {value:g}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(START_SECONDS)


@contextmanager
def serving(folder: Path, *arguments: str, **environment: str) -> Iterator[Running]:
    """Run ``nightjar serve`` with `arguments` on a free port; its log goes to a file in `folder`."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "infra.cli", "serve", "--port", "0", *arguments]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, **environment},
            # A shell lets its background jobs ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - takes no lock
        )  # fmt: skip
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if ready else ""
        assert " is ready at http://" in line, log.read_text()
        yield Running(process, line.split()[-1], log)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
