"""The logs of a step: write the controller's log, upload all logs to the LogUri, and find the cause of a failure."""

import gzip
import logging
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from jobs.errors import NightjarError
from jobs.lake.store import Store
from jobs.lake.uri import to_uri

log = logging.getLogger(__name__)

NAMES = ("controller", "stdout", "stderr")

_TAIL_BYTES = 65536
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit)\b")
_SPARK_LOG = re.compile(
    r"^\d\d/\d\d/\d\d \d\d:\d\d:\d\d [A-Z]+ |^(?:WARNING: |Using Spark's default log4j|Setting default)"
)


def write_controller(folder: Path, text: str) -> None:
    """Append a line to the controller's log of a step."""
    with (folder / "controller").open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} INFO {text}\n")


def step_log_uri(log_uri: str, cluster_id: str, step_id: str) -> str:
    """Return the folder of a step's logs, in EMR's layout."""
    return f"{log_uri.rstrip('/')}/{cluster_id}/steps/{step_id}"


def upload(folder: Path, uri: str, store: Store) -> None:
    """Compress the logs in `folder` and upload them to `uri`. Logs that cannot be uploaded stay in `folder`."""
    try:
        for name in NAMES:
            packed = folder / f"{name}.gz"
            with (folder / name).open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
                shutil.copyfileobj(source, target)
            store.copy(packed.absolute().as_uri(), to_uri(f"{uri}/{name}.gz"))
            packed.unlink()
    except (OSError, NightjarError) as error:
        log.warning("Cannot upload the logs of a step; they stay in %s: %s", folder, error)


def cause(folder: Path, status: int) -> str:
    """Return one line that says why a step with this exit status failed, from the end of its logs.

    The line is the last exception in the output, or else the last plain line. For exit status 2 it is the last plain
    line, because by convention such a program prints one line for the user. PySpark writes the driver's stderr to the
    step's stdout, and Spark's log to the step's stderr. Other programs write errors to stderr.
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
