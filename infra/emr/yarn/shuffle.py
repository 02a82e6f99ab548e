"""Compile Spark's shuffle service for a NodeManager. Spark ships the Scala compiler, so no JDK is needed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from infra.emr.yarn.hosts import HostError

_SOURCE = Path(__file__).with_name("ShuffleService.scala")
_TIMEOUT_SECONDS = 300


def compiled(java: Path, class_path: str, cache: Path) -> Path:
    """Return the jar of the shuffle service for this class path. Compile the service if the cache lacks the jar."""
    key = hashlib.sha256(_SOURCE.read_bytes() + class_path.encode()).hexdigest()[:16]
    jar = cache / f"shuffle-service-{key}.jar"
    if jar.is_file():
        return jar
    part = jar.with_name(f"{jar.stem}.{os.getpid()}.jar")
    cache.mkdir(parents=True, exist_ok=True)
    command = [str(java), "-Xss4m", "-cp", class_path, "scala.tools.nsc.Main", "-usejavacp", "-d", str(part)]
    done = subprocess.run(
        [*command, str(_SOURCE)], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    if done.returncode or not part.is_file():
        lines = (done.stdout + done.stderr).strip().splitlines()
        part.unlink(missing_ok=True)
        raise HostError(f"{_SOURCE.name} does not compile: {lines[0] if lines else done.returncode}")
    part.replace(jar)
    return jar
