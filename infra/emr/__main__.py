"""Start the embedded EMR and serve until a signal arrives.

    python -m infra.emr --port 5555 --bucket lake --state-dir .airflow/emr

The server prints its URL to stdout when it is ready, and logs to stderr. SIGTERM or SIGINT stops it and ends all
clusters and steps. The exit status is then 0; otherwise it is
2 for a wrong option and 1 for any other error.
"""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from infra.emr.server import embedded_emr
from infra.emr.settings import EmrSettings
from jobs.errors import NightjarError


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal arrives, and return the exit status."""
    settings = _settings(_parser().parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("botocore", "boto3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with embedded_emr(settings) as endpoint_url:
            sys.stdout.write(f"The embedded EMR and S3 are ready at {endpoint_url}\n")
            sys.stdout.flush()
            stop.wait()
    except NightjarError as error:
        sys.stderr.write(f"infra.emr: {error}\n")
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    default = EmrSettings()
    parser = argparse.ArgumentParser("python -m infra.emr", description="Amazon EMR and S3 on this machine.")
    add = parser.add_argument
    add("--host", default=default.host, help="address to listen on; anyone who can reach it can run commands as you")
    add("--port", type=_port, default=5555, help="port to listen on; 0 chooses a free one (default: 5555)")
    add(
        "--bucket",
        action="append",
        default=[],
        metavar="NAME",
        help="S3 bucket to create at the start; may be repeated",
    )
    add(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="folder for the steps' working directories and logs (default: a temporary folder)",
    )
    add(
        "--executors",
        choices=("threads", "processes"),
        default=default.executors,
        help="run Spark executors as threads of the driver's JVM, or each as a process",
    )
    add("--start-seconds", type=float, default=default.start_seconds, help="how long a cluster is in state STARTING")
    add(
        "--bootstrap-seconds",
        type=float,
        default=default.bootstrap_seconds,
        help="how long a cluster is in state BOOTSTRAPPING",
    )
    add(
        "--grace-seconds",
        type=float,
        default=default.grace_seconds,
        help="seconds between SIGTERM and SIGKILL when a step is ended",
    )
    add("--java-options", default=default.java_options, help="JVM options for Spark steps that set none")
    add(
        "--env",
        action="append",
        default=[],
        type=_variable,
        metavar="NAME=VALUE",
        help="environment variable for every step; may be repeated",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number (0 to 65535)")
    return int(text)


def _variable(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not name or not mark:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _settings(args: argparse.Namespace) -> EmrSettings:
    given = vars(args)
    return EmrSettings(buckets=tuple(given.pop("bucket")), step_env=dict(given.pop("env")), **given)


if __name__ == "__main__":
    sys.exit(main())
