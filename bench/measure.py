"""Run a program and measure the memory and CPU time of it and its children."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from typing import Any

import psutil

_SAMPLE_SECONDS = 0.05


@dataclass
class Usage:
    """Memory and CPU time of a program and its children. On a busy machine, CPU time is the better measure."""

    peaks: dict[str, int] = field(default_factory=lambda: {"driver": 0, "jvm": 0, "worker": 0})
    """Peak resident bytes of the program's own process, of a JVM, and of its largest other child."""
    cpu_seconds_of: dict[int, float] = field(default_factory=dict)
    """CPU seconds by process id."""

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of all processes."""
        return sum(self.cpu_seconds_of.values())

    def record(self, process: psutil.Process, is_driver: bool) -> None:
        """Record the memory and CPU time of a process."""
        with process.oneshot():
            kind = "driver" if is_driver else "jvm" if process.name() == "java" else "worker"
            self.peaks[kind] = max(self.peaks[kind], process.memory_info().rss)
            self.cpu_seconds_of[process.pid] = sum(process.cpu_times()[:2])


def run_measured(command: list[str], environment: dict[str, str] | None = None) -> tuple[dict[str, Any], Usage]:
    """Run a program whose last line is JSON. Return the JSON and the program's usage."""
    env = {**os.environ, **(environment or {})}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        output, usage = _communicate(process)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{log.read()}\n{' '.join(command)}: exit code {process.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result, usage


def _communicate(process: subprocess.Popen[str]) -> tuple[str, Usage]:
    usage, ended = Usage(), threading.Event()
    sampler = threading.Thread(target=_sample, args=(psutil.Process(process.pid), usage, ended), daemon=True)
    sampler.start()
    output, _ = process.communicate()
    ended.set()
    sampler.join()
    return output, usage


def _sample(root: psutil.Process, usage: Usage, ended: threading.Event) -> None:
    while not ended.wait(_SAMPLE_SECONDS):
        try:
            found = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in found:
            try:
                usage.record(process, process == root)
            except psutil.NoSuchProcess:
                continue
