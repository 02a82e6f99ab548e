"""A step's logs: the controller's own, their way to the cluster's LogUri, and the cause of a failure read from them."""

import gzip
import logging
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from infra.emr.store import Store, StoreError

log = logging.getLogger(__name__)

NAMES = ("controller", "stdout", "stderr")

_TAIL_BYTES = 65536
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b")
_SPARK_LOG = re.compile(
    r"^\d\d/\d\d/\d\d \d\d:\d\d:\d\d [A-Z]+ |^(?:WARNING: |Using Spark's default log4j|Setting default)"
)


def write_controller(folder: Path, text: str) -> None:
    """Adds a line to what the cluster itself has to say about a step."""
    with (folder / "controller").open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} INFO {text}\n")


def step_log_uri(log_uri: str, cluster_id: str, step_id: str) -> str:
    """Where EMR puts the logs of a step."""
    return f"{log_uri.rstrip('/')}/{cluster_id}/steps/{step_id}"


def ship(folder: Path, uri: str, store: Store) -> None:
    """Publishes the logs in `folder` under `uri`, gzipped. Logs that cannot be published stay where they are."""
    try:
        for name in NAMES:
            packed = folder / f"{name}.gz"
            with (folder / name).open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
                shutil.copyfileobj(source, target)
            store.publish(packed, f"{uri}/{name}.gz")
            packed.unlink()
    except (OSError, StoreError) as error:
        log.warning("Logs stay in %s: %s", folder, error)


def cause(folder: Path, status: int) -> str:
    """One line that says why a step with this exit status failed, as far as its output tells.

    That is the last exception in its output or, for a program that explains itself in a plain line, the last such line.
    Programs that exit with 2 do, by convention. PySpark sends the driver's error stream to the step's standard output
    and Spark's own log to its standard error; any other program explains itself on standard error.
    """
    stdout, stderr = _tail(folder / "stdout"), _tail(folder / "stderr")
    lines = stderr + stdout if any(_SPARK_LOG.match(line) for line in stderr) else stdout + stderr
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    plain = [line for line in lines if line.strip() and not line[0].isspace() and not _SPARK_LOG.match(line)]
    found = plain if status == 2 else exceptions or plain
    return f"exit status {status}: {found[-1].strip()}" if found else f"exit status {status}"


def _tail(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()
