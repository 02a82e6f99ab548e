"""Start the embedded EMR: ``nightjar emr --port 5555 --bucket lake``."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from infra.emr.settings import Bootstrap, EmrSettings, Executors
from jobs.errors import InputError

DEFAULT = EmrSettings()

app = typer.Typer()


@app.command("emr", rich_help_panel="Embedded EMR")
def emr(
    host: Annotated[
        str, Option(help="Address to listen on. Anyone who can reach it can run commands as you.")
    ] = DEFAULT.host,
    port: Annotated[int, Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 5555,
    bucket: Annotated[
        list[str] | None, Option(metavar="NAME", help="S3 bucket to create. Repeat the option for several buckets.")
    ] = None,
    state_dir: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Folder for clusters, and for the working folders and logs of their steps. A server that is started"
            " again with the same folder still has its clusters. Default: a temporary folder.",
        ),
    ] = DEFAULT.state_dir,
    executors: Annotated[
        Executors,
        Option(
            help="Run Spark executors as threads of the driver's JVM, as processes, or on a local YARN cluster, whose"
            " hosts are network namespaces (Linux, root)."
        ),
    ] = DEFAULT.executors,
    start_seconds: Annotated[
        float, Option(help="Seconds that a new cluster stays in the state STARTING.")
    ] = DEFAULT.start_seconds,
    bootstrap_seconds: Annotated[
        float,
        Option(help="Seconds that a new cluster stays in the state BOOTSTRAPPING, besides its bootstrap actions."),
    ] = DEFAULT.bootstrap_seconds,
    bootstrap: Annotated[
        Bootstrap,
        Option(help="Execute all bootstrap actions (full), or skip the one that builds Nightjar's environment (fast)."),
    ] = DEFAULT.bootstrap,
    log_delay_seconds: Annotated[
        float, Option(min=0, help="Seconds from the end of a step until its logs are uploaded.")
    ] = DEFAULT.log_delay_seconds,
    clock_speed: Annotated[
        float, Option(help="Speed of the clock for start times, timeouts, spot notices and late logs. 1 is real time.")
    ] = DEFAULT.clock_speed,
    grace_seconds: Annotated[
        float, Option(help="Seconds from SIGTERM to SIGKILL when a step is ended.")
    ] = DEFAULT.grace_seconds,
    java_options: Annotated[
        str, Option(help="JVM options for spark-submit steps that set none themselves.")
    ] = DEFAULT.java_options,
    env: Annotated[
        list[str] | None,
        Option(metavar="NAME=VALUE", help="Environment variable for all steps. Repeat the option for several."),
    ] = None,
) -> None:
    """Start the embedded EMR: a server with the EMR and S3 APIs, which executes steps as processes on this machine.

    The URL is printed when the server is ready. Ctrl-C or SIGTERM stops it, with all clusters and steps.
    """
    from infra.emr.server import embedded_emr

    settings = EmrSettings(
        host=host,
        port=port,
        buckets=tuple(bucket or ()),
        state_dir=state_dir,
        start_seconds=start_seconds,
        bootstrap_seconds=bootstrap_seconds,
        bootstrap=bootstrap,
        log_delay_seconds=log_delay_seconds,
        clock_speed=clock_speed,
        grace_seconds=grace_seconds,
        executors=executors,
        java_options=java_options,
        step_env=dict(map(_variable, env or ())),
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    for name in ("botocore", "boto3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with embedded_emr(settings) as endpoint_url:
        sys.stdout.write(f"The embedded EMR and S3 are ready at {endpoint_url}\n")
        sys.stdout.flush()
        stop.wait()


def _variable(text: str) -> tuple[str, str]:
    """Return the name and the value in ``NAME=VALUE``. Raise InputError if `text` does not have this form."""
    name, found, value = text.partition("=")
    if not name or not found:
        raise InputError(f"--env {text}: write NAME=VALUE")
    return name, value
