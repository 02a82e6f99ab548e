"""Show how Spark ran the steps of a run, even after the cluster has ended: ``nightjar history RUN``."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.error import URLError
from urllib.request import urlopen

import typer
from typer import Option

from jobs.cli import options
from jobs.cli.ports import free_port
from jobs.errors import NightjarError

if TYPE_CHECKING:
    from jobs.lake.layout import Lake

START_SECONDS = 120.0
_HOST = "127.0.0.1"

app = typer.Typer()


@app.command("history")
def history(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Id of a run in the lake, or PIPELINE/ID.", show_default=False)
    ],
    lake: options.Lake = "lake",
    port: Annotated[int, Option(min=0, max=65535, help="Port on this machine; 0 takes a free one.")] = 18080,
) -> None:
    """Show the steps of a run in Spark's history server until Ctrl-C: stages, tasks, stragglers, executors.

    The event logs are copied from the run's folder in the lake. A step that ran without Spark has no event log.
    """
    from jobs.engine import history as logs
    from jobs.lake.layout import Lake
    from jobs.lake.uri import to_uri

    chosen = free_port(port)
    with tempfile.TemporaryDirectory(prefix="nightjar-history-") as name:
        folder = Path(name)
        logs.download(_events_of(run, Lake(to_uri(lake))), folder)
        server = logs.start_server(folder, chosen)
        try:
            _wait_until_up(server, chosen)
            sys.stdout.write(f"http://{_HOST}:{chosen} shows the steps of {run}; press Ctrl-C to end\n")
            sys.stdout.flush()
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            server.wait()
        except KeyboardInterrupt:
            pass
        finally:
            _end(server)


def _events_of(name: str, lake: Lake) -> str:
    """Return the URI of the folder that has the event logs of the run `name`.

    If no run with this name has event logs, the folder is empty.
    """
    from jobs.lake import store
    from jobs.lake.runs import only_one, runs_named

    found = [run for run in runs_named(name, lake) if store.list_files(run.spark_events)]
    return only_one(name, found or [lake.run(name)]).spark_events


def _wait_until_up(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        if server.poll() is not None:
            raise NightjarError(f"Spark's history server ended with code {server.returncode}; its output is above")
        try:
            urlopen(f"http://{_HOST}:{port}/api/v1/version", timeout=5).close()
        except (URLError, OSError):
            if time.monotonic() > deadline:
                raise NightjarError(
                    f"Spark's history server does not answer after {START_SECONDS:.0f} s; see its output above"
                ) from None
            time.sleep(0.3)
        else:
            return


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
