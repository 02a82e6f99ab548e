"""What can be chosen about the embedded EMR. Read by every module of it; flags of ``python -m infra.emr``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Executors = Literal["threads", "processes"]

# Compiling less and collecting garbage on one thread halves the CPU time of a step of a few seconds.
SMALL_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


@dataclass(frozen=True)
class Settings:
    """Choices of whoever starts the server."""

    host: str = "127.0.0.1"
    """Address to listen on. Whoever reaches it can run commands as this user: keep it on loopback."""

    port: int = 0
    """0 takes a free one."""

    buckets: tuple[str, ...] = ()
    """S3 buckets that exist from the start."""

    state_dir: Path | None = None
    """Where steps work and their logs grow: `<cluster>/steps/<step>/`. None is a temporary folder, gone at the end."""

    start_seconds: float = 0.5
    """How long a cluster is STARTING."""

    bootstrap_seconds: float = 0.5
    """How long a cluster is BOOTSTRAPPING. Its bootstrap actions are recorded, not executed: the environment of this
    Python is what they would have built."""

    grace_seconds: float = 5.0
    """How long a step that must end has between TERM and KILL."""

    executors: Executors = "threads"
    """`threads`: one JVM, Spark's `local[slots,attempts]`. `processes`: a JVM for each executor (`local-cluster[...]`).
    A cluster may choose for itself by the tag `nightjar:executors`."""

    java_options: str = SMALL_JVM
    """JVM options of drivers (and executors that are processes) whose step brings none."""

    step_env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for every step, above all others."""


@dataclass(frozen=True)
class Site:
    """A running server, as its clusters see it."""

    endpoint_url: str
    state_dir: Path
    settings: Settings
