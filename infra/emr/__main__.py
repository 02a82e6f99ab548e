"""Starts the embedded EMR and serves until it is told to stop.

    python -m infra.emr --port 5555 --bucket lake --state-dir .airflow/emr

Prints one line with its URL when it is ready, and logs to standard error. TERM or INT ends it with all that it started.
Exit status: 0 after that, 2 if it cannot start as asked.
"""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from infra.emr.server import StartError, embedded_emr
from infra.emr.settings import Settings
from infra.emr.store import StoreError


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal arrives; returns the exit status."""
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
    except (StartError, StoreError) as error:
        sys.stderr.write(f"infra.emr: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser("python -m infra.emr", description="An EMR and S3 endpoint on this machine.")
    add = parser.add_argument
    add("--host", default=default.host, help="address to listen on; whoever reaches it can run commands as you")
    add("--port", type=_port, default=5555, help="0 takes a free one (default: 5555)")
    add("--bucket", action="append", default=[], metavar="NAME", help="S3 bucket to create; may be repeated")
    add(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where steps work and their logs grow (default: a temporary folder)",
    )
    add(
        "--executors",
        choices=("threads", "processes"),
        default=default.executors,
        help="one JVM, or one for each executor",
    )
    add("--start-seconds", type=float, default=default.start_seconds, help="how long a cluster is STARTING")
    add("--bootstrap-seconds", type=float, default=default.bootstrap_seconds, help="how long it is BOOTSTRAPPING")
    add("--grace-seconds", type=float, default=default.grace_seconds, help="from TERM to KILL of a step that must end")
    add("--java-options", default=default.java_options, help="for Spark's JVMs whose step brings none")
    add(
        "--env",
        action="append",
        default=[],
        type=_variable,
        metavar="NAME=VALUE",
        help="for every step; may be repeated",
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _variable(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not name or not mark:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _settings(args: argparse.Namespace) -> Settings:
    given = vars(args)
    return Settings(buckets=tuple(given.pop("bucket")), step_env=dict(given.pop("env")), **given)


if __name__ == "__main__":
    sys.exit(main())
