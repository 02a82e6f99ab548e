"""Start a local Airflow with its UI and the embedded EMR, on loopback: ``make airflow``.

    python -m infra.airflow.standalone [--port 8080] [--emr-port 0] [--lake lake] [--home .airflow]
        [--executors threads]

If the lake is on this machine, the sample corpus is copied into it, and the trigger form offers this corpus. The
command prints the URL and the login once everything is healthy, and stops all processes on Ctrl-C or SIGTERM. The
folder ``--home`` contains the database, logs, password and secrets. Exit codes: 0 after Ctrl-C or SIGTERM, 2 if an
option is wrong, 1 if a process failed or did not start.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from infra.airflow.environment import PROJECT_ROOT, admin_password, environment
from infra.airflow.processes import GuardedProcess, wait_until
from infra.direct import OPENER
from infra.emr.settings import Executors
from infra.lake import folders, sample_corpus
from jobs.cli.ports import free_port
from jobs.errors import InputError, NightjarError
from jobs.lake.layout import Lake
from jobs.lake.uri import bucket_and_key, is_s3, local_path, to_uri

log = logging.getLogger(__name__)

START_TIMEOUT_SECONDS = 120.0
DEFAULT_PORT = 8080
READY = """
Airflow is ready: %s
User: admin   Password: %s

Next
  train a model: open the address, log in, and press Trigger; the form is filled in
    %s/dags/train_llm
  use a text of yours: %s
    %s
  stop Airflow%s
    Ctrl-C"""
READY_YARN = """
  watch YARN while a run has a cluster
    http://198.18.0.10:8088
  disconnect a host from the network, and connect it again (as root)
    ip -n njy-switch link set njy-1 down; ip -n njy-switch link set njy-1 up
  kill a host with all its processes (as root)
    kill -9 $(ip netns pids njy-2)"""
STOPPED = "Stopped. The lake and the runs are kept; the same command starts Airflow again"
STOPPED_IN_MEMORY = "Stopped. The lake was in the memory of the embedded S3 and is lost; Airflow's list of runs is kept"
AIRFLOW = (sys.executable, "-m", "airflow")
EMR_READY_MESSAGE = "ready at"
_COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],  # it would serve logs on every network interface
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
}
_HEALTHY = ("metadatabase", "scheduler", "triggerer", "dag_processor")
_REQUEST_SECONDS = 60.0  # the first response may take long on a busy machine


@dataclass(frozen=True)
class LocalAirflow:
    """A running local Airflow."""

    url: str
    password: str
    emr_endpoint: str
    processes: tuple[GuardedProcess, ...]


@contextmanager
def local_airflow(
    home: Path,
    lake: str,
    port: int = 0,
    emr_port: int = 0,
    extra_env: dict[str, str] | None = None,
    executors: Executors = "threads",
    airflow: Sequence[str] = AIRFLOW,
) -> Iterator[LocalAirflow]:
    """Run Airflow and the embedded EMR for the duration of a `with` block.

    Args:
        home: Folder of Airflow's database, logs and secrets.
        lake: Path or URI of the lake. If it is on S3, its bucket is created in the embedded S3.
        port: Port of the UI and API; 0 chooses a free one.
        emr_port: Port of the embedded EMR; 0 chooses a free one.
        extra_env: Additional environment variables, which override all others.
        executors: How the embedded EMR runs Spark's executors.
        airflow: Command of Airflow. A subcommand, such as ``scheduler``, is appended to it.

    Raises:
        ProcessError: if a process ended, or is not healthy within the timeout.
    """
    lake_uri, port = to_uri(lake), free_port(port)
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        emr_endpoint = f"http://127.0.0.1:{free_port(emr_port)}"
        env = {**environment(home, lake_uri, emr_endpoint, port), **(extra_env or {})}

        def start(name: str, command: list[str]) -> GuardedProcess:
            return stack.enter_context(GuardedProcess(name, command, env, home / "logs" / f"{name}.log"))

        emr = start("emr", emr_command(home, lake_uri, emr_endpoint, executors))
        start("migrate", [*airflow, "db", "migrate"]).wait_for_success(START_TIMEOUT_SECONDS)
        wait_until(
            lambda: emr.has_logged(EMR_READY_MESSAGE), "the embedded EMR has not started", [emr], START_TIMEOUT_SECONDS
        )
        components = [start(name, [*airflow, *arguments]) for name, arguments in _COMPONENTS.items()]
        running = LocalAirflow(f"http://127.0.0.1:{port}", admin_password(home), emr_endpoint, (emr, *components))
        for condition, name in (
            (lambda: is_healthy(running.url), "Airflow is not healthy"),
            (lambda: is_dag_ready(running.url, running.password, "train_llm"), "the DAG train_llm is not parsed"),
        ):
            wait_until(condition, name, running.processes, START_TIMEOUT_SECONDS)
        yield running


def main(argv: Sequence[str] | None = None) -> int:
    """Start Airflow, print its URL and login, wait for a signal, and return the exit code."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(stop))
    try:
        if options.executors == "yarn":
            _check_yarn(to_uri(options.lake))
        log.info("Starting Airflow and the embedded EMR (logs: %s)", options.home.absolute() / "logs")
        port = _default_port() if options.port is None else free_port(options.port)
        emr_port = free_port(options.emr_port)
        with (
            folders.owned_folder(options.home),
            _ready_lake(to_uri(options.lake)) as env,
            local_airflow(options.home, options.lake, port, emr_port, env, options.executors) as running,
        ):
            log.info(READY, running.url, running.password, running.url, *_about_lake(to_uri(options.lake)))
            if options.executors == "yarn":
                log.info(READY_YARN)
            while not stop.wait(1.0):
                for process in running.processes:
                    process.check_running()
    except KeyboardInterrupt:
        log.info(STOPPED_IN_MEMORY if is_s3(to_uri(options.lake)) else STOPPED)
    except NightjarError as error:
        log.error("infra.airflow.standalone: %s", error)
        return error.exit_code
    except PermissionError as error:
        log.error("infra.airflow.standalone: %s", folders.refusal(error))
        return InputError.exit_code
    return 0


@contextmanager
def _ready_lake(lake_uri: str) -> Iterator[dict[str, str]]:
    """Prepare the lake for runs on the sample corpus, and yield a dict of environment variables for Airflow.

    If the lake is on this machine, create its folders, copy the corpus into it, and yield an empty dict. A lake in the
    embedded S3 is empty at each start. For such a lake, yield the path of the sample corpus on this machine as
    ``NIGHTJAR_CORPUS``. If the user has set this variable, yield an empty dict.
    """
    cache = PROJECT_ROOT / ".cache"
    with ExitStack() as stack:
        env = {}
        if not is_s3(lake_uri):
            stack.enter_context(folders.local_lake(local_path(lake_uri)))
        try:
            if not is_s3(lake_uri):
                sample_corpus.provide(local_path(lake_uri) / folders.CORPORA, cache)
            elif not os.environ.get("NIGHTJAR_CORPUS"):
                env["NIGHTJAR_CORPUS"] = str(sample_corpus.shakespeare(cache))
        except InputError as error:
            log.warning("%s", error)
        yield env


def _check_yarn(lake_uri: str) -> None:
    """Check that a local YARN cluster can run on this machine, and that its hosts can reach the lake."""
    from infra.emr.spark_home import require_spark  # noqa: PLC0415 - only a YARN cluster needs it
    from infra.emr.yarn import cluster  # noqa: PLC0415 - see above

    if not is_s3(lake_uri):
        raise InputError(
            f"--lake {lake_uri}: the hosts of a YARN cluster reach only S3; give a lake at s3://, as on EMR"
        )
    cluster.check(require_spark())


def _about_lake(lake_uri: str) -> tuple[str, str, str]:
    """Return three values of the message `READY`: how to use your own text, where to put it, and what a stop loses."""
    corpora = Lake(lake_uri).corpora
    if is_s3(lake_uri):
        return "upload it, and name it in the form", f"{corpora}/...", " (the lake is in memory, and is lost)"
    return "put it into this folder, and the form offers it", str(local_path(corpora)), ""


def _default_port() -> int:
    """Return the port in `NIGHTJAR_PORT`, or else 8080. Return 0, for any free port, if 8080 is in use."""
    if chosen := os.environ.get("NIGHTJAR_PORT"):
        try:
            return int(chosen)
        except ValueError:
            raise InputError(f"NIGHTJAR_PORT: {chosen!r} is not a port number; set a number such as 8081") from None
    try:
        return free_port(DEFAULT_PORT)
    except InputError:
        log.info("Port %d is in use, so the UI gets another one", DEFAULT_PORT)
        return 0


def call(url: str, body: Any = None, token: str = "", method: str | None = None) -> Any:
    """Send a JSON request and return the JSON of the response.

    Raises:
        OSError: if there is no response, or if its status is an error.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - our own http://127.0.0.1
    with OPENER.open(request, timeout=_REQUEST_SECONDS) as response:
        return json.load(response)


def login(url: str, password: str) -> str:
    """Log in to Airflow's API as ``admin`` and return the access token."""
    return str(call(f"{url}/auth/token", {"username": "admin", "password": password})["access_token"])


def is_healthy(url: str) -> bool:
    """Return whether all components of the Airflow at `url` report that they are healthy."""
    try:
        health = call(f"{url}/api/v2/monitor/health")
    except (OSError, ValueError):
        return False
    return all((health.get(name) or {}).get("status") == "healthy" for name in _HEALTHY)


def is_dag_ready(url: str, password: str, dag_id: str) -> bool:
    """Return whether Airflow has parsed the DAG, so that it can be triggered."""
    try:
        return bool(call(f"{url}/api/v2/dags/{dag_id}", token=login(url, password)))
    except (OSError, ValueError):
        return False


def _stop(stop: threading.Event) -> None:
    """Handle SIGINT or SIGTERM: raise `KeyboardInterrupt` at the first signal, and ignore further signals."""
    if not stop.is_set():
        stop.set()
        raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m infra.airflow.standalone", description=__doc__.splitlines()[0])
    home_help = "folder of Airflow's database, logs and secrets (default: .airflow)"
    parser.add_argument("--home", type=Path, default=PROJECT_ROOT / ".airflow", help=home_help)
    lake = os.environ.get("NIGHTJAR_LAKE") or str(PROJECT_ROOT / "lake")
    lake_help = "path, file:///... or s3://bucket/prefix (default: NIGHTJAR_LAKE, or lake)"
    parser.add_argument("--lake", default=lake, help=lake_help)
    kinds = get_args(Executors)
    executors_help = "how Spark's executors run; yarn needs Linux, root and a lake at s3:// (default: threads)"
    parser.add_argument("--executors", choices=kinds, default="threads", help=executors_help)
    port_help = "port of the UI; 0 chooses a free one (default: NIGHTJAR_PORT, or 8080, or a free one if 8080 is taken)"
    parser.add_argument("--port", type=int, help=port_help)
    parser.add_argument("--emr-port", type=int, default=0, help="port of the embedded EMR (default: a free one)")
    return parser


def emr_command(home: Path, lake_uri: str, endpoint: str, executors: Executors = "threads") -> list[str]:
    """Return the command that starts the embedded EMR at `endpoint`.

    If the lake is on S3, the command also creates its bucket.
    """
    command = [sys.executable, "-m", "infra.emr", "--port", endpoint.rpartition(":")[2]]
    buckets = ["--bucket", bucket_and_key(lake_uri)[0]] if is_s3(lake_uri) else []
    return [*command, "--state-dir", str(home / "emr"), "--executors", executors, *buckets]


if __name__ == "__main__":
    sys.exit(main())
