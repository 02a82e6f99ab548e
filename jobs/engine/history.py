"""Keeps Spark's event logs in the run's folder, and shows them with Spark's own history server.

A cluster may already be configured to write event logs: EMR writes them to HDFS, which is lost with the cluster. So
when an application ends, its log is copied to the run's folder. If the driver was killed, the log is not copied.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobs.errors import InputError, NightjarError
from jobs.lake import store
from jobs.lake.names import confined
from jobs.lake.uri import join, local_path, relative_name

log = logging.getLogger(__name__)

SERVER = "org.apache.spark.deploy.history.HistoryServer"


def settings(folder: Path) -> dict[str, str]:
    """Return the Spark settings with which an application logs its events to one compressed file in a local folder."""
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": folder.as_uri(),
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "true",
    }


def fetch(jvm: Any, hadoop_conf: Any, log_dir: str, application: str, folder: Path) -> None:
    """Copy an application's event log from `log_dir`, which may be on HDFS, to a local folder. Spark's JVM reads it."""
    pattern = jvm.org.apache.hadoop.fs.Path(f"{log_dir.rstrip('/')}/*{application}*")
    system = pattern.getFileSystem(hadoop_conf)
    for found in system.globStatus(pattern) or ():
        system.copyToLocalFile(False, found.getPath(), jvm.org.apache.hadoop.fs.Path(folder.as_uri()), True)


def keep(folder: Path, folder_uri: str) -> None:
    """Copy event logs from a local folder to the lake."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".crc"):
        store.copy(path.as_uri(), join(folder_uri, path.relative_to(folder).as_posix()))
        log.info("Spark's event log was copied to %s", join(folder_uri, path.name))


def download(folder_uri: str, folder: Path) -> None:
    """Copy the event logs of a run to a local folder.

    Raises:
        InputError: if the run has no event logs.
    """
    found = store.list_files(folder_uri)
    if not found:
        raise InputError(
            f"{folder_uri}: this run has no Spark event logs; choose a run in which a step on Spark has ended and its"
            " driver was not killed"
        )
    for file in found:
        path = local_path(confined(folder.as_uri(), relative_name(file.uri, folder_uri)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read_bytes(file.uri))


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start Spark's history server for the logs in a folder, on the loopback interface. Return its process.

    Raises:
        NightjarError: if Spark is not installed here.
    """
    try:
        import pyspark  # noqa: PLC0415 - only this command needs it here
    except ModuleNotFoundError:
        raise NightjarError("pyspark is not installed in this environment; run make setup") from None
    home = Path(pyspark.__path__[0])
    options = {
        "spark.history.fs.logDirectory": folder.as_uri(),
        "spark.history.ui.port": str(port),
        "spark.history.fs.cleaner.enabled": "false",
    }
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_NO_DAEMONIZE": "1",
        "SPARK_HISTORY_OPTS": " ".join(f"-D{key}={value}" for key, value in options.items()),
        "PYSPARK_PYTHON": sys.executable,
    }
    return subprocess.Popen([str(home / "bin" / "spark-class"), SERVER], env=environment, stdin=subprocess.DEVNULL)
