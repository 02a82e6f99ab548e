"""Run one step: download its files, run its command in a folder of its own, and upload its logs."""

import importlib.util
import logging
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.emr import guard, logs
from infra.emr.client import open_store
from infra.emr.command import ClusterSpec, StepCommand, step_command, step_env
from infra.emr.settings import ServerContext
from infra.emr.spark_submit import CommandError
from jobs.errors import NightjarError
from jobs.lake.store import Store
from jobs.lake.uri import to_uri

log = logging.getLogger(__name__)

_SLACK_SECONDS = 5.0
"""Time that a guard may take beyond its grace period."""


@dataclass(frozen=True)
class StepSpec:
    """A step to execute."""

    jar: str
    args: Sequence[str]
    folder: Path
    """The step's own folder. It has the logs and, while the step runs, the working directory `work/`."""
    log_uri: str | None
    """The folder that the logs are uploaded to; None keeps them local."""


class Execution:
    """The execution of a step: `run` blocks, and another thread may call `stop`."""

    def __init__(self, spec: StepSpec, server: ServerContext) -> None:
        self._step = spec
        self._server = server
        self._lock = threading.Lock()
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._discard_logs = False

    def run(self, cluster: ClusterSpec) -> str | None:
        """Run the step and upload its logs. Return the cause of its failure, or None if it succeeded."""
        folder, store = self._step.folder, open_store(self._server.endpoint_url)
        (folder / "work").mkdir(parents=True)
        for name in logs.NAMES:
            (folder / name).touch()
        try:
            status = self._attempt(cluster, store)
            failure = None if status == 0 else logs.cause(folder, status)
        except (OSError, NightjarError) as error:
            failure = str(error)
        finally:
            shutil.rmtree(folder / "work", ignore_errors=True)
        logs.write_controller(folder, failure or "done")
        if self._step.log_uri and not self._discard_logs:
            logs.upload(folder, self._step.log_uri, store)
        return failure

    def stop(self, request: bytes = guard.TERMINATE) -> None:
        """End the step or prevent its start, without waiting. The logs of a killed step are not uploaded."""
        with self._lock:
            self._stopped = True
            self._discard_logs |= request == guard.KILL
            if self._guard is not None and self._guard.stdin is not None:
                with suppress(BrokenPipeError, ValueError):  # the guard has just ended
                    self._guard.stdin.write(request)

    def join(self) -> None:
        """Wait until no process of a stopped step is left."""
        if self._guard is not None:
            _end(self._guard, self._server.settings.grace_seconds + _SLACK_SECONDS)

    def _attempt(self, cluster: ClusterSpec, store: Store) -> int:
        folder, home = self._step.folder, find_spark()
        if home is not None and cluster.executors == "processes":
            home = _private_spark_home(home, folder / "work" / ".spark")
        command = step_command(self._step.jar, self._step.args, cluster, home, self._server.settings.java_options)
        env = step_env(os.environ, self._server, cluster, home, folder / "work" / ".scratch")
        for download in command.downloads:
            logs.write_controller(folder, f"fetch {download.uri}")
            try:
                store.copy(to_uri(download.uri), (folder / "work" / download.path).as_uri())
            except OSError as error:
                raise CommandError(f"cannot read {download.uri}: {error}") from None
        logs.write_controller(folder, f"run {shlex.join(command.argv)}")
        process = self._start(command, env)
        if process is None:
            return -1
        with process:
            status = process.wait()
        logs.write_controller(folder, f"exit status {status}")
        return status

    def _start(self, command: StepCommand, env: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """Start the step under a guard, unless `stop` was called before."""
        folder = self._step.folder
        grace = str(self._server.settings.grace_seconds)
        with self._lock, (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
            if not self._stopped:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", guard.__file__, grace, *command.argv],
                    cwd=folder / "work",
                    env=env,
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    bufsize=0,
                    start_new_session=True,
                )
            return self._guard


def find_spark() -> Path | None:
    """Return the folder of the pip package of Spark without importing it, or None if it is not installed."""
    spec = importlib.util.find_spec("pyspark")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _private_spark_home(home: Path, folder: Path) -> Path:
    """Make a Spark home of symbolic links. Executors that are processes write to its folder `work`."""
    folder.mkdir()
    for entry in home.iterdir():
        (folder / entry.name).symlink_to(entry)
    return folder


def _end(process: subprocess.Popen[bytes], timeout_seconds: float) -> None:
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        log.error("A step did not end within %s s after it was killed", timeout_seconds)
        process.kill()
