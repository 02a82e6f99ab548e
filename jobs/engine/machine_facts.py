"""Collects facts about the machines of a cluster: the configuration of Spark and YARN, versions, disks and GPUs.

``nightjar aws-smoke`` records them on a real cluster, because no document states them. Secrets are left out.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from jobs.engine.base import num_cores

FILES = (
    "/etc/spark/conf/spark-defaults.conf",
    "/etc/spark/conf/spark-env.sh",
    "/etc/hadoop/conf/yarn-site.xml",
    "/etc/hadoop/conf/core-site.xml",
    "/etc/hadoop/conf/capacity-scheduler.xml",
)
"""Configuration files that the EMR release installs on a node."""
COMMANDS = (
    ("java", "-version"),
    ("nvidia-smi",),
    ("yarn", "node", "-list", "-showDetails"),
    ("python3.11", "--version"),
    ("df", "-h"),
)
"""Commands whose output is recorded, if they are installed."""
_SECRET = re.compile(r"secret|password|token|credential|access.?key", re.IGNORECASE)
_VARIABLES = re.compile(r"AWS_(DEFAULT_)?REGION|LOCAL_DIRS|SPARK_\w*DIRS?|JAVA_HOME|PYSPARK_\w*PYTHON|PYTHONPATH")
_SECONDS = 60


def of_machine(_item: Any = None) -> dict[str, Any]:
    """Return the facts of the machine that this function runs on."""
    return {
        "host": socket.gethostname(),
        "cores": num_cores(),
        "memory": _first_line(Path("/proc/meminfo")),
        "python": sys.version,
        "system": platform.platform(),
        "packages": {name: _version(name) for name in ("pyspark", "torch", "pyarrow", "boto3")},
        "cuda": _cuda(),
        "variables": {name: value for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)},
        "files": {path: without_secrets(text) for path in FILES if (text := _read(Path(path))) is not None},
        "commands": {" ".join(words): _output(words) for words in COMMANDS if shutil.which(words[0])},
    }


def without_secrets(text: str) -> str:
    """Return the text of a configuration file, with ``(left out)`` in place of secrets."""
    pairs = re.sub(r"(<name>[^<]*)(</name>\s*<value>)[^<]*", _hide_pair, text)
    return "\n".join("(left out)" if _SECRET.search(line) and "<" not in line else line for line in pairs.splitlines())


def _hide_pair(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}(left out)" if _SECRET.search(found[1]) else found[0]


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return None


def _first_line(path: Path) -> str:
    return (_read(path) or "").partition("\n")[0]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _output(words: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f"{done.stdout}{done.stderr}"


def _cuda() -> dict[str, Any]:
    """Return the build of torch, and the GPUs that torch can use."""
    import torch  # noqa: PLC0415 - takes long to import

    seen = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if seen else []
    return {"torch": torch.__version__, "built_for": torch.version.cuda, "is_available": seen, "devices": names}
