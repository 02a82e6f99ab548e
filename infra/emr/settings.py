"""Settings of the embedded EMR, which are options of ``nightjar emr``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from infra.emr.clock import Clock
from infra.emr.faults import Faults
from infra.emr.jvm import SMALL_JVM
from infra.emr.logs import Uploads
from jobs.lake.store import Store

Executors = Literal["threads", "processes", "yarn"]
Bootstrap = Literal["fast", "full"]


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
    """Folder for clusters, and for the working folders and logs of their steps. A server that is started again with the
    same folder still has its clusters. None uses a temporary folder."""
    start_seconds: float = 0.5
    """How long a cluster is in state STARTING."""
    bootstrap_seconds: float = 0.5
    """How long a cluster is in state BOOTSTRAPPING, in addition to its bootstrap actions."""
    bootstrap: Bootstrap = "fast"
    """`full` executes all bootstrap actions. `fast` skips the one that builds Nightjar's Python environment. Steps
    then use the server's Python environment."""
    log_delay_seconds: float = 0.0
    """How long after the end of a step its logs are uploaded. EMR itself takes a few minutes."""
    clock_speed: float = 1.0
    """Speed of the server's clock; 1 is real time. Start times, idle timeouts, spot notices and late logs follow it."""
    grace_seconds: float = 5.0
    """Seconds between SIGTERM and SIGKILL when a step is ended."""
    executors: Executors = "threads"
    """`threads` runs executors in the driver's JVM (Spark's `local[...]`). `processes` runs each in a JVM of its own
    (`local-cluster[...]`). `yarn` runs them on a local YARN cluster whose hosts are network namespaces (Linux, root).
    The tag `nightjar:executors` overrides this setting for one cluster."""
    java_options: str = SMALL_JVM
    """JVM options for the driver, and for executors with a JVM of their own. A step can override them."""
    step_env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for every step. They override all others."""


@dataclass(frozen=True)
class ServerContext:
    """The parts of a running server that its clusters use."""

    endpoint_url: str
    state_dir: Path
    settings: EmrSettings
    store: Store
    clock: Clock
    faults: Faults
    uploads: Uploads
    s3_at: Callable[[str], AbstractContextManager[str]]
    """A function of an address of this machine. It returns a context manager that serves S3 to YARN hosts at the
    address, and yields the URL."""
