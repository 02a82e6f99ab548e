"""One step from its first file to its last log: a folder, copies of its files, a process tree, logs shipped."""

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
from infra.emr.command import ClusterSpec, StepCommand, step_command, step_env
from infra.emr.settings import Site
from infra.emr.spark_submit import CommandError
from infra.emr.store import Store, StoreError

log = logging.getLogger(__name__)

_SLACK_SECONDS = 5.0
"""What a guard may need beyond the grace that it was told."""


@dataclass(frozen=True)
class Work:
    """A step, as its execution sees it."""

    jar: str
    args: Sequence[str]
    folder: Path
    """Its private folder: `work/` while it runs, its logs as they grow."""

    log_uri: str | None
    """The folder that gets its logs."""


class Execution:
    """Runs a step in the thread that calls `run`; any other thread may call `stop`."""

    def __init__(self, work: Work, site: Site) -> None:
        self._work = work
        self._site = site
        self._lock = threading.Lock()
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._forgotten = False

    def run(self, spec: ClusterSpec) -> str | None:
        """Runs the step, and ships its logs.

        Returns:
            Why it failed; None if it did not.
        """
        folder, store = self._work.folder, Store(self._site.endpoint_url)
        (folder / "work").mkdir(parents=True)
        for name in logs.NAMES:
            (folder / name).touch()
        try:
            status = self._attempt(spec, store)
            failure = None if status == 0 else logs.cause(folder, status)
        except (CommandError, OSError, StoreError) as error:
            failure = str(error)
        finally:
            shutil.rmtree(folder / "work", ignore_errors=True)
        logs.write_controller(folder, failure or "done")
        if self._work.log_uri and not self._forgotten:
            logs.ship(folder, self._work.log_uri, store)
        return failure

    def stop(self, order: bytes = guard.TERMINATE) -> None:
        """Ends the step, or keeps it from starting. Does not wait for it. A step that is killed leaves no logs."""
        with self._lock:
            self._stopped = True
            self._forgotten |= order == guard.KILL
            if self._guard is not None and self._guard.stdin is not None:
                with suppress(BrokenPipeError, ValueError):  # it has just ended
                    self._guard.stdin.write(order)

    def join(self) -> None:
        """Waits until no process of a stopped step is left."""
        if self._guard is not None:
            _end(self._guard, self._site.settings.grace_seconds + _SLACK_SECONDS)

    def _attempt(self, spec: ClusterSpec, store: Store) -> int:
        folder, home = self._work.folder, find_spark()
        if home is not None and spec.executors == "processes":
            home = _private_spark_home(home, folder / "work" / ".spark")
        command = step_command(self._work.jar, self._work.args, spec, home, self._site.settings.java_options)
        env = step_env(os.environ, self._site, spec, home, folder / "work" / ".scratch")
        for download in command.downloads:
            logs.write_controller(folder, f"fetch {download.uri}")
            store.fetch(download.uri, folder / "work" / download.path)
        logs.write_controller(folder, f"run {shlex.join(command.argv)}")
        process = self._start(command, env)
        if process is None:
            return -1
        with process:
            status = process.wait()
        logs.write_controller(folder, f"exit status {status}")
        return status

    def _start(self, command: StepCommand, env: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """Starts the step under a guard, unless it has been stopped already."""
        folder = self._work.folder
        grace = str(self._site.settings.grace_seconds)
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
    """Where the pip package of Spark is, if it is installed. Does not import it."""
    spec = importlib.util.find_spec("pyspark")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _private_spark_home(home: Path, folder: Path) -> Path:
    """Makes a Spark installation out of links: executors that are processes work in `SPARK_HOME/work`."""
    folder.mkdir()
    for entry in home.iterdir():
        (folder / entry.name).symlink_to(entry)
    return folder


def _end(process: subprocess.Popen[bytes], timeout_seconds: float) -> None:
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        log.error("A step did not end within %s s of being killed", timeout_seconds)
        process.kill()
