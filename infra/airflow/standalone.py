"""A local Airflow with its UI and the embedded EMR, on loopback: ``make airflow``.

    python -m infra.airflow.standalone [--port 8080] [--emr-port 0] [--lake lake] [--home .airflow]

Shows address and login when everything is healthy, and stops all that it started on Ctrl-C or TERM. Everything that it
keeps lies in its home: database, logs, password, secrets. Exit codes: 0 after a stop, 2 if it cannot start as asked
(one clear line), 1 if a part of it died.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.airflow.environment import PROJECT_ROOT, admin_password, environment
from infra.airflow.headless import run_dag
from infra.airflow.processes import Guarded, ProcessError, free_port, wait_for
from infra.airflow.webserver import is_healthy, is_parsed
from jobs.errors import InputError
from jobs.lake.uri import bucket_and_key, is_s3, to_uri

__all__ = ["LocalAirflow", "environment", "local_airflow", "run_dag"]

log = logging.getLogger(__name__)

START_SECONDS = 120.0
EMR_IS_READY = "ready at"
_COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],  # it would serve logs on every interface; all read the files
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
}


@dataclass(frozen=True)
class LocalAirflow:
    """A running Airflow."""

    url: str
    password: str
    emr_endpoint: str
    parts: tuple[Guarded, ...]


@contextmanager
def local_airflow(
    home: Path, lake: str, port: int = 0, emr_port: int = 0, extra_env: dict[str, str] | None = None
) -> Iterator[LocalAirflow]:
    """Run Airflow and the embedded EMR until the block is left.

    Args:
        home: Where Airflow keeps database, logs and secrets.
        lake: Path or URI; a bucket that it names is made in the embedded S3.
        port: Of the UI and API; 0 takes a free one.
        emr_port: Of the embedded EMR; 0 takes a free one.
        extra_env: Environment variables above all others.

    Raises:
        InputError: if a port is taken, or the lake is of an unknown scheme.
        ProcessError: if a part died or is not healthy in time.
    """
    lake_uri, port = to_uri(lake), free_port(port)
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        emr_endpoint = f"http://127.0.0.1:{free_port(emr_port)}"
        env = {**environment(home, lake_uri, emr_endpoint, port), **(extra_env or {})}

        def start(name: str, command: list[str]) -> Guarded:
            return stack.enter_context(Guarded(name, command, env, home / "logs" / f"{name}.log"))

        emr = start("emr", emr_command(home, lake_uri, emr_endpoint))
        start("migrate", _airflow("db", "migrate")).succeed(START_SECONDS)
        wait_for(lambda: emr.said(EMR_IS_READY), "an embedded EMR", [emr], START_SECONDS)
        parts = [start(name, _airflow(*words)) for name, words in _COMPONENTS.items()]
        running = LocalAirflow(f"http://127.0.0.1:{port}", admin_password(home), emr_endpoint, (emr, *parts))
        wait_for(lambda: is_healthy(running.url), "healthy", running.parts, START_SECONDS)
        wait_for(lambda: is_parsed(running.url, running.password, "train_llm"), "ready", running.parts, START_SECONDS)
        yield running


def main(argv: Sequence[str] | None = None) -> int:
    """Start, show address and login, wait for a signal; return the exit code."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(stop))
    try:
        log.info("Starting Airflow and the embedded EMR; logs are in %s", options.home.absolute())
        with local_airflow(options.home, options.lake, options.port, options.emr_port) as running:
            log.info("\nAirflow is ready at %s   login: admin   password: %s", running.url, running.password)
            log.info("Trigger the DAG train_llm there. Ctrl-C stops everything.")
            while not stop.wait(1.0):
                for part in running.parts:
                    part.check()
    except KeyboardInterrupt:
        log.info("Stopped")
    except InputError as error:
        log.error("infra.airflow.standalone: %s", error)
        return error.exit_code
    except ProcessError as error:
        log.error("infra.airflow.standalone: %s", error)
        return 1
    return 0


def _stop(stop: threading.Event) -> None:
    """Ends the wait; while starting, ends the start. A second signal changes nothing."""
    if not stop.is_set():
        stop.set()
        raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m infra.airflow.standalone", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=PROJECT_ROOT / ".airflow", help="where Airflow keeps its state")
    lake = os.environ.get("NIGHTJAR_LAKE") or str(PROJECT_ROOT / "lake")
    parser.add_argument("--lake", default=lake, help="path, file:///... or s3://bucket/prefix (NIGHTJAR_LAKE)")
    parser.add_argument("--port", type=int, default=8080, help="of the UI; 0 takes a free one (default: 8080)")
    parser.add_argument("--emr-port", type=int, default=0, help="of the embedded EMR (default: a free one)")
    return parser


def _airflow(*words: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *words]


def emr_command(home: Path, lake_uri: str, endpoint: str) -> list[str]:
    """What starts the embedded EMR at `endpoint`, with the bucket of the lake if it has one."""
    command = [sys.executable, "-m", "infra.emr", "--port", endpoint.rpartition(":")[2]]
    buckets = ["--bucket", bucket_and_key(lake_uri)[0]] if is_s3(lake_uri) else []
    return [*command, "--state-dir", str(home / "emr"), *buckets]


if __name__ == "__main__":
    sys.exit(main())
