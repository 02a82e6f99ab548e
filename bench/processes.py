"""Programs that are measured: their JSON, and the most memory that each kind of their processes had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from typing import Any

import psutil

_EVERY_SECONDS = 0.05


def measured(command: list[str], environment: dict[str, str] | None = None) -> tuple[dict[str, Any], dict[str, int]]:
    """Run a program that prints JSON last.

    Returns:
        What it printed, and peak resident bytes: of the process (``driver``), of a JVM, and of its largest Python
        child (``worker``).
    """
    env = {**os.environ, **(environment or {})}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        output, peaks = _watched(process)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{log.read()}\n{' '.join(command)}: exit code {process.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result, peaks


def _watched(process: subprocess.Popen[str]) -> tuple[str, dict[str, int]]:
    peaks = {"driver": 0, "jvm": 0, "worker": 0}
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peaks, over), daemon=True)
    watcher.start()
    output, _ = process.communicate()
    over.set()
    watcher.join()
    return output, peaks


def _watch(root: psutil.Process, peaks: dict[str, int], over: threading.Event) -> None:
    while not over.wait(_EVERY_SECONDS):
        try:
            found = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in found:
            try:
                kind = "driver" if process == root else "jvm" if process.name() == "java" else "worker"
                peaks[kind] = max(peaks[kind], process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
