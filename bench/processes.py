"""Programs that are measured: their JSON, and what they used of memory and of the cores."""

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

_EVERY_SECONDS = 0.05


@dataclass
class Usage:
    """What a program and its children used. CPU seconds tell more than seconds where others use the machine too."""

    peaks: dict[str, int] = field(default_factory=lambda: {"driver": 0, "jvm": 0, "worker": 0})
    """Most resident bytes of the program's own process, of a JVM, and of its largest other child."""
    cpu_seconds_of: dict[int, float] = field(default_factory=dict)
    """By process id."""

    @property
    def cpu_seconds(self) -> float:
        """Of all processes together."""
        return sum(self.cpu_seconds_of.values())

    def see(self, process: psutil.Process, is_driver: bool) -> None:
        """Note what a process has used so far."""
        with process.oneshot():
            kind = "driver" if is_driver else "jvm" if process.name() == "java" else "worker"
            self.peaks[kind] = max(self.peaks[kind], process.memory_info().rss)
            self.cpu_seconds_of[process.pid] = sum(process.cpu_times()[:2])


def measured(command: list[str], environment: dict[str, str] | None = None) -> tuple[dict[str, Any], Usage]:
    """Run a program that prints JSON last; return that, and what the program used."""
    env = {**os.environ, **(environment or {})}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        output, usage = _watched(process)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{log.read()}\n{' '.join(command)}: exit code {process.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result, usage


def _watched(process: subprocess.Popen[str]) -> tuple[str, Usage]:
    usage, over = Usage(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), usage, over), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    over.set()
    watcher.join()
    return output, usage


def _watch(root: psutil.Process, usage: Usage, over: threading.Event) -> None:
    while not over.wait(_EVERY_SECONDS):
        try:
            found = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in found:
            try:
                usage.see(process, process == root)
            except psutil.NoSuchProcess:
                continue
