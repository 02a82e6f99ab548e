"""Run a cluster's steps and bootstrap actions. Each runs in its own folder, which holds its downloads and logs."""

from __future__ import annotations

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

import psutil

from infra.emr import guard, logs
from infra.emr.command import ClusterSpec, StepCommand, step_command, step_env, yarn_command
from infra.emr.jvm import with_archive
from infra.emr.settings import ServerContext
from infra.emr.spark_home import find_spark
from infra.emr.spark_submit import CommandError, find_engine
from jobs.errors import NightjarError
from jobs.lake.uri import to_uri

log = logging.getLogger(__name__)

NOT_STARTED = -1
_SLACK_SECONDS = 5.0
"""Seconds after the grace period in which a guard process (`infra/emr/guard.py`) must end."""
_EXECUTOR = "CoarseGrainedExecutorBackend"


class GuardedCommand:
    """A command that runs in its own folder. `run` blocks, and another thread may call `stop`.

    The folder has the logs `controller`, `stdout` and `stderr`. While the command runs, it also has the working
    directory `work/`. The command's parent is a guard process (`infra/emr/guard.py`), which ends all processes of the
    command.
    """

    def __init__(self, folder: Path, server: ServerContext) -> None:
        self.folder = folder
        self.server = server
        self._lock = threading.Lock()
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self.killed = False
        """Whether the command was ended by SIGKILL without a grace period. Its logs are then not uploaded."""

    def prepare(self) -> None:
        """Make the folder, the working directory and empty logs."""
        (self.folder / "work").mkdir(parents=True)
        for name in logs.NAMES:
            (self.folder / name).touch()

    def run(self, command: StepCommand, env: Mapping[str, str]) -> int:
        """Download the command's files, run the command and return its exit status.

        Return `NOT_STARTED` if `stop` was called before the command could start.
        """
        for download in command.downloads:
            self.write_log(f"fetch {download.uri}")
            try:
                self.server.store.copy(to_uri(download.uri), (self.folder / "work" / download.path).as_uri())
            except OSError as error:
                raise CommandError(f"cannot read {download.uri}: {error}") from None
        self.write_log(f"run {shlex.join(command.argv)}")
        process = self._start([*command.entering, *command.argv], env)
        if process is None:
            return NOT_STARTED
        with process:
            status = process.wait()
        self.write_log(f"exit status {status}")
        return status

    def environment(self, cluster: ClusterSpec, spark_home: Path | None) -> dict[str, str]:
        """Return the environment variables of a command on the cluster."""
        scratch, server = self.folder / "work" / ".scratch", self.server
        return step_env(os.environ, server.endpoint_url, cluster, spark_home, scratch, server.settings.step_env)

    def write_log(self, text: str) -> None:
        """Append a line to the controller's log."""
        logs.write_controller(self.folder, text)

    def clean(self) -> None:
        """Remove the working directory."""
        shutil.rmtree(self.folder / "work", ignore_errors=True)

    def stop(self, request: bytes = guard.TERMINATE) -> None:
        """Request the end of the command, without waiting for it. A command that has not started yet never starts.

        `request` is sent to the guard process: `guard.TERMINATE` or `guard.KILL`.
        """
        with self._lock:
            self._stopped = True
            self.killed |= request == guard.KILL
            if self._guard is not None and self._guard.stdin is not None:
                with suppress(BrokenPipeError, ValueError):  # the guard has just ended
                    self._guard.stdin.write(request)

    def join(self) -> None:
        """Wait until no process of a stopped command is left."""
        if self._guard is not None:
            _end(self._guard, self.server.settings.grace_seconds + _SLACK_SECONDS)

    def kill_executors(self, lost: Sequence[int], workers: int) -> int:
        """Kill the Spark executors on lost workers, and return how many were killed.

        All executors run on this machine. In the order of their ids, they are assigned to the workers in turn.

        Args:
            lost: The numbers of the lost workers, from 0.
            workers: The number of all workers.
        """
        if self._guard is None:
            return 0
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self._guard.pid).children(recursive=True)
            numbered = sorted((number, each) for each in found if (number := _executor_id(each)) is not None)
            dead = [each for place, (_, each) in enumerate(numbered) if place % workers in lost]
            for each in dead:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            return len(dead)
        return 0

    def _start(self, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """Start the command as a child of a guard process. If `stop` was called before, only return None."""
        folder, grace = self.folder, str(self.server.settings.grace_seconds)
        with self._lock, (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
            if not self._stopped:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", guard.__file__, grace, *argv],
                    cwd=folder / "work",
                    env=env,
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=err,
                    bufsize=0,
                    start_new_session=True,
                )
            return self._guard


@dataclass(frozen=True)
class StepSpec:
    """A step to execute."""

    jar: str
    args: Sequence[str]
    log_uri: str | None
    """The folder to which the logs are uploaded. If None, the logs are not uploaded."""


class StepExecution(GuardedCommand):
    """The execution of a step."""

    def __init__(self, spec: StepSpec, folder: Path, server: ServerContext) -> None:
        super().__init__(folder, server)
        self._step = spec

    def execute(self, cluster: ClusterSpec) -> str | None:
        """Run the step and upload its logs. Return the cause of its failure, or None if it succeeded."""
        try:
            self.prepare()
            status = self._attempt(cluster)
            failure = None if status == 0 else logs.cause(self.folder, status)
        except (OSError, NightjarError) as error:
            failure = str(error)
        finally:
            self.clean()
        self.write_log(failure or "done")
        if self._step.log_uri and not self.killed:
            self.server.uploads.add(self.folder, self._step.log_uri)
        return failure

    def _attempt(self, cluster: ClusterSpec) -> int:
        if cluster.yarn is not None:
            folder = cluster.yarn.step_folder(self.folder.name)
            command = yarn_command(self._step.jar, self._step.args, cluster.yarn, folder)
            try:
                return self.run(command, cluster.yarn.step_env(self.server.settings.step_env))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        home, work = find_spark(), self.folder / "work"
        if home is not None and find_engine(cluster.executors).own_jvms:
            home = _private_spark_home(home, work / ".spark")
        java_options = with_archive(self.server.settings.java_options)
        command = step_command(self._step.jar, self._step.args, cluster, home, java_options)
        return self.run(command, self.environment(cluster, home))


def _executor_id(process: psutil.Process) -> int | None:
    """Return the id of the executor if the process is a Spark executor. Return None for any other process."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied, ValueError, IndexError):
        words = process.cmdline()
        if any(word.endswith(_EXECUTOR) for word in words):
            return int(words[words.index("--executor-id") + 1])
    return None


def _private_spark_home(home: Path, folder: Path) -> Path:
    """Make a Spark home in `folder` from links to the files of `home`. Executors write into it, and not into `home`."""
    folder.mkdir()
    for entry in home.iterdir():
        (folder / entry.name).symlink_to(entry)
    return folder


def _end(process: subprocess.Popen[bytes], timeout_seconds: float) -> None:
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        log.error(
            "A command did not end within %s s after it was stopped; its guard process is killed now", timeout_seconds
        )
        process.kill()
