"""Runs of a DAG without Airflow's servers, forked from a process that has loaded Airflow.

`infra.airflow.headless.run_dag` starts a process for each run, which needs ten seconds of CPU time before its first
task, for imports and for checks of the database. Suites with many runs call `run_dag` of this module instead: the first
call starts a server that does that once, and each run is a fork of it.

The server is ``python -m tests.support.headless SOCKET`` and serves one run for each connection.
"""

import asyncio
import atexit
import functools
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from infra.airflow.environment import environment
from infra.airflow.headless import DAG_ID, run_here
from infra.airflow.processes import GuardedProcess, wait_until

_START_SECONDS = 300.0
_starting = Lock()


class _Request(NamedTuple):
    dag_id: str
    run_id: str
    conf: dict[str, Any]
    environ: dict[str, str]
    log: str


def run_dag(conf: Mapping[str, Any], run_id: str, environ: Mapping[str, str], log: Path, dag_id: str = DAG_ID) -> int:
    """Run a DAG and wait for it, as `infra.airflow.headless.run_dag` does. The runs of a process may be parallel."""
    request = _Request(dag_id, run_id, dict(conf), dict(environ), str(log.absolute()))
    with _starting:
        socket = str(_server())
    with Client(socket, "AF_UNIX") as connection:
        connection.send(request)
        try:
            return int(connection.recv())
        except EOFError:
            return 1  # the process of the run was killed


@functools.cache
def _server() -> Path:
    """Start the server of this process, which ends with this process, and return its socket."""
    stack = ExitStack()
    atexit.register(stack.close)
    folder = Path(tempfile.mkdtemp(prefix="nightjar-headless-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    socket = folder / "socket"
    command = [sys.executable, "-m", "tests.support.headless", str(socket)]
    environ = environment(folder / "airflow", "file:///nowhere", "http://127.0.0.1:9")
    server = stack.enter_context(GuardedProcess("headless", command, environ, folder / "log"))
    wait_until(socket.exists, "the server of headless runs has not started", [server], _START_SECONDS)
    return socket


def _serve(socket: str) -> None:
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with Listener(socket, "AF_UNIX") as listener:
        while True:
            with listener.accept() as connection:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _answer(connection)


def _load() -> None:
    """Do what takes time in each run: imports, migrations of the database, Airflow's API, reading the package."""
    # The process that calls `run_dag` needs none of them.
    import httpx
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk.execution_time.supervisor import in_process_api_server
    from airflow.utils.db import initdb

    from nightjar.packaging.build import build

    async def ask() -> None:
        """Ask for any page: the API is complete after its first answer."""
        async with httpx.AsyncClient(transport=in_process_api_server().atransport) as client:
            await client.get("http://in-process/")

    initdb()
    DagBag()
    build()
    asyncio.run(ask())


def _answer(connection: Connection) -> None:
    """Run one DAG in this fork, send the exit code, and end the process."""
    request = connection.recv()
    code = 1
    try:
        with Path(request.log).open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.environ.clear()
        os.environ.update(request.environ)
        _read_settings()
        code = run_here(request.dag_id, request.run_id, request.conf)
    except BaseException:  # noqa: BLE001 - the log shows it, and the fork ends
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(code)
    os._exit(code)


def _read_settings() -> None:
    """Have Airflow use the database and the folders that the environment of this fork names."""
    from airflow import settings

    settings.configure_vars()  # type: ignore[no-untyped-call]
    settings.reconfigure_orm()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    _serve(sys.argv[1])
