"""Settings of the embedded EMR, which are options of ``nightjar emr``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Executors = Literal["threads", "processes"]

# Fewer compiler tiers and a serial collector halve the CPU time of a step of a few seconds.
SMALL_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


@dataclass(frozen=True)
class EmrSettings:
    """Settings of one server."""

    host: str = "127.0.0.1"
    """Address to listen on. Anyone who can reach it can run commands as this user, so keep it on loopback."""
    port: int = 0
    """Port to listen on; 0 chooses a free one."""
    buckets: tuple[str, ...] = ()
    """S3 buckets to create at the start and to delete at the end."""
    state_dir: Path | None = None
    """Folder for the steps' working directories and logs: `<cluster>/steps/<step>/`. None uses a temporary folder."""
    start_seconds: float = 0.5
    """How long a cluster is in state STARTING."""
    bootstrap_seconds: float = 0.5
    """How long a cluster is in state BOOTSTRAPPING. Its bootstrap actions are not run: steps use this Python."""
    grace_seconds: float = 5.0
    """Seconds between SIGTERM and SIGKILL when a step is ended."""
    executors: Executors = "threads"
    """`threads` runs executors in the driver's JVM (Spark's `local[...]`), `processes` each in a JVM of its own
    (`local-cluster[...]`). The tag `nightjar:executors` overrides it for one cluster."""
    java_options: str = SMALL_JVM
    """JVM options for the driver, and for executors that are processes, unless the step sets its own."""
    step_env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for every step. They override all others."""


@dataclass(frozen=True)
class ServerContext:
    """What the clusters of a running server need of it."""

    endpoint_url: str
    state_dir: Path
    settings: EmrSettings
