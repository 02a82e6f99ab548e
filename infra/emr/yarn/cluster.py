"""YARN for one cluster: its hosts, its daemons, and the command that runs a step on the primary host."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.direct import OPENER
from infra.emr import guard
from infra.emr.client import KEYS, STEP_AGENT
from infra.emr.jvm import SMALL_JVM, java_home
from infra.emr.yarn import configuration, hosts, jars, shuffle, view
from infra.emr.yarn.hosts import HostError

log = logging.getLogger(__name__)

START_SECONDS = 180.0
PRIMARY = 0
"""The number of the host that has the ResourceManager and the drivers."""
MANAGER = "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager"
NODE = "org.apache.hadoop.yarn.server.nodemanager.NodeManager"
_REST = f"http://{hosts.address(PRIMARY)}:8088/ws/v1/cluster"
_DAEMON_OPTIONS = (
    "-Xmx250m",
    *SMALL_JVM.split(),
    "--add-opens=java.base/java.lang=ALL-UNNAMED",  # for the dependency injection in Hadoop's web pages
)


@dataclass(frozen=True)
class YarnSpec:
    """The settings with which YARN starts for a cluster."""

    spark_home: Path
    python: Path
    """The Python interpreter of drivers and executors."""
    spark_defaults: Mapping[str, str]
    exports: Mapping[str, str]
    java_options: str
    largest_mb: int
    """MB of memory for containers on the largest node."""


@dataclass
class _Host:
    """The primary host, or a host with a NodeManager."""

    number: int
    folder: Path
    entry: Path
    """The script that runs a command on the host."""
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)


def check(spark_home: Path) -> tuple[Path, ...]:
    """Check that this machine can run YARN for this Spark, and return Hadoop's jars.

    Raises:
        InputError: if this machine cannot run YARN.
    """
    hosts.check_machine()
    view.account()
    return jars.provide(jars.client_version(spark_home))


class Yarn:
    """YARN for one cluster. Only one thread at a time may call `start`, `sync` and `stop`."""

    def __init__(self, spec: YarnSpec) -> None:
        self._spec = spec
        self._stack = ExitStack()
        self._user = view.account()
        self._java = _java()
        self._hosts: dict[str, _Host] = {}
        self._next = PRIMARY
        self._jars: tuple[Path, ...] = ()
        self._shown: list[Path] = []
        self._folders = configuration.ConfFolders(Path(), Path())
        self._class_path = ""
        self.endpoint = ""
        """The URL at which the hosts reach S3."""

    def start(
        self, primary: str, workers: Mapping[str, int], serve: Callable[[str], Any], give_up: Callable[[], bool]
    ) -> bool:
        """Start all hosts and daemons, and wait until every node is in use.

        Return False if `give_up` returns true first.

        Args:
            primary: The primary instance's id.
            workers: The MB of memory for containers on each instance that runs containers. The keys are the instances'
                ids. In a cluster of one instance, the primary instance runs containers.
            serve: Returns a context manager that serves S3 at an address and yields its URL.
            give_up: Returns whether the cluster is ending.
        """
        self._jars = check(self._spec.spark_home)
        lock = hosts.acquire(give_up)
        if lock is None:
            return False
        self._stack.callback(lock.close)
        hosts.clean()
        self._stack.callback(hosts.clean)
        hosts.make_bridge()
        self.endpoint = self._stack.enter_context(serve(hosts.GATEWAY))
        self._prepare()
        first = self._add(primary)
        self._check_python(first)
        first.daemons.append(self._daemon(first, MANAGER, 0))
        if primary in workers:
            first.daemons.append(self._daemon(first, NODE, workers[primary]))
        self.sync(primary, workers)
        return self._wait(len(workers), give_up)

    def sync(self, primary: str, workers: Mapping[str, int]) -> None:
        """Start a host for each new instance, and remove the hosts of instances that are gone."""
        wanted = {primary, *workers}
        for name in [name for name in self._hosts if name not in wanted]:
            host = self._hosts.pop(name)
            hosts.remove(host.number)
            log.info("%s was removed, because its instance %s has ended", hosts.host_name(host.number), name)
        for name, megabytes in workers.items():
            if name not in self._hosts:
                host = self._add(name)
                host.daemons.append(self._daemon(host, NODE, megabytes))

    def stop(self) -> None:
        """Kill all processes on the hosts, and remove the hosts."""
        self._stack.close()

    def address(self, name: str) -> str | None:
        """Return the address of an instance's host. Return None if it has no host."""
        host = self._hosts.get(name)
        return None if host is None else hosts.address(host.number)

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes in the form of the ResourceManager's REST API."""
        return rest("nodes").get("nodes") or []

    def step_folder(self, name: str) -> Path:
        """Make the working folder of a step on the primary host, and return it."""
        return self._user.own(hosts.WORK / hosts.host_name(PRIMARY) / "steps" / name)

    def entering(self, folder: Path) -> tuple[str, ...]:
        """Return the start of a command line. The command after it runs in `folder` on the primary host.

        It runs as the unprivileged user.
        """
        entry = hosts.WORK / hosts.host_name(PRIMARY) / "enter"
        return tuple(hosts.inside(PRIMARY, ["sh", str(entry), str(folder)]))

    def step_env(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return a step's environment variables, as on an EMR node but without a region. `own` overrides them."""
        return {**self._env(), **own}

    def keep_logs(self, folder: Path) -> None:
        """Copy the logs of daemons and containers of all hosts into `folder`."""
        if not self.endpoint:  # not started: the hosts may be those of another program
            return
        for node in sorted(hosts.WORK.glob("node-*")):
            for source in [*node.glob("*.log"), *node.glob("logs/*/*/*")]:
                target = folder / node.name / source.relative_to(node)
                with suppress(OSError):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)

    def _prepare(self) -> None:
        """Write the files that all hosts share, and compile the shuffle service."""
        spec = self._spec
        cache_path = ":".join([*map(str, self._jars), f"{spec.spark_home}/jars/*"])
        service = shuffle.compiled(self._java, cache_path, jars.CACHE)
        lines = [f"{hosts.address(number)} {hosts.host_name(number)}\n" for number in range(hosts.MOST_HOSTS)]
        (hosts.WORK / "hosts").write_text("".join(["127.0.0.1 localhost\n", *lines]), "utf-8")
        staging = self._user.own(hosts.WORK / "staging")
        container_env = {"AWS_ENDPOINT_URL": self.endpoint, **KEYS, "AWS_EC2_METADATA_DISABLED": "true"}
        values = {
            "spark_home": str(spec.spark_home),
            "staging": str(staging),
            "java_options": spec.java_options,
            "endpoint": self.endpoint,
            "primary": hosts.host_name(PRIMARY),
            "largest_mb": str(spec.largest_mb),
            "container_env": ",".join(f"{key}={value}" for key, value in container_env.items()),
        }
        self._folders = configuration.write(hosts.WORK / "conf", values, spec.spark_defaults, spec.exports)
        self._class_path = f"{self._folders.hadoop}:{service}:{cache_path}"
        java_home = self._java.parent.parent
        files = [each.parent for each in (*self._jars, service)]
        self._shown = view.needed(spec.spark_home, spec.python.parent.parent, java_home, *files)

    def _add(self, name: str) -> _Host:
        number = self._next
        if number == hosts.MOST_HOSTS:
            raise HostError(f"this cluster has had {number} hosts, which is the limit; start another cluster")
        self._next += 1
        folder = hosts.WORK / hosts.host_name(number)
        folder.mkdir()
        for each in ("local", "logs", "hadoop"):
            self._user.own(folder / each)
        hosts.add(number)
        environment = self._spec.python.parent.parent
        entry = view.write_entry(folder, number, self._shown, environment, self._user)
        self._hosts[name] = _Host(number, folder, entry)
        return self._hosts[name]

    def _check_python(self, host: _Host) -> None:
        """Check that the unprivileged user can run the job's Python interpreter."""
        command = hosts.inside(
            host.number, ["sh", str(host.entry), "/", str(self._spec.python), "-c", "import pyspark"]
        )
        done = subprocess.run(command, env=self._env(), capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise HostError(
                f"the user {self._user.name} cannot run {self._spec.python} on a host:"
                f" {lines[-1] if lines else done.returncode}; make its files readable for all users"
            )

    def _daemon(self, host: _Host, name: str, megabytes: int) -> subprocess.Popen[bytes]:
        """Start a daemon below a guard process, which ends the daemon when the server ends or is killed."""
        options = [f"-Dnode.name={hosts.host_name(host.number)}", f"-Dnode.dir={host.folder}", f"-Dnode.mb={megabytes}"]
        options += [f"-Dhadoop.log.dir={host.folder}/logs"]
        logging_file = f"-Dlog4j2.configurationFile={self._folders.hadoop}/log4j2.properties"
        java = [str(self._java), *_DAEMON_OPTIONS, logging_file, *options, "-cp", self._class_path, name]
        command = hosts.inside(host.number, ["sh", str(host.entry), "/tmp", *java])  # noqa: S108 - each host has its own
        with (host.folder / f"{name.rpartition('.')[2]}.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-I", guard.__file__, "0", *command],
                env=self._env(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _env(self) -> dict[str, str]:
        """Return the environment of every process on a host."""
        spec, java_home = self._spec, self._java.parent.parent
        path = [spec.spark_home / "bin", java_home / "bin"]
        return {
            **KEYS,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_EXECUTION_ENV": STEP_AGENT,
            "HADOOP_CONF_DIR": str(self._folders.hadoop),
            "YARN_CONF_DIR": str(self._folders.hadoop),
            "SPARK_CONF_DIR": str(self._folders.spark),
            "SPARK_HOME": str(spec.spark_home),
            "SPARK_DIST_CLASSPATH": jars.classpath(self._jars),
            "JAVA_HOME": str(java_home),
            "PATH": ":".join([*map(str, path), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
            "HOME": "/tmp",  # noqa: S108 - each host has its own
            "USER": self._user.name,
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",  # the user may not write beside the sources
        }

    def _wait(self, count: int, give_up: Callable[[], bool]) -> bool:
        """Wait until `count` nodes are in use. Return False if `give_up` returns true first."""
        deadline = time.monotonic() + START_SECONDS
        while not give_up():
            with suppress(OSError, ValueError):
                if sum(node["state"] == "RUNNING" for node in self.nodes()) >= count:
                    return True
            for host in self._hosts.values():
                for daemon in host.daemons:
                    if daemon.poll() is not None:
                        raise HostError(f"{hosts.host_name(host.number)}: a daemon ended: {_last_error(host.folder)}")
            if time.monotonic() > deadline:
                primary = hosts.WORK / hosts.host_name(PRIMARY)
                raise HostError(
                    f"YARN has fewer than {count} nodes after {START_SECONDS:.0f} s: {_last_error(primary)}"
                )
            time.sleep(0.3)
        return False


def _java() -> Path:
    """Return the path of the program java."""
    if (home := java_home()) is None:
        raise HostError("java: not found; set JAVA_HOME to the folder that make setup wrote to .venv/java_home")
    return home / "bin" / "java"


def _last_error(folder: Path) -> str:
    """Return the last error line in the logs of a host's folder, or their last line if there is no error."""
    lines = [line for path in folder.glob("*.log") for line in path.read_text("utf-8", "replace").splitlines()]
    wrong = [line for line in lines if "ERROR" in line or ("Exception" in line and not line.startswith("\t"))] or lines
    return wrong[-1] if wrong else "its logs are empty"


def rest(path: str) -> dict[str, Any]:
    """Return the JSON at a path of the ResourceManager's REST API."""
    with OPENER.open(f"{_REST}/{path}", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
