"""An isolated environment for every test, without the accounts, settings and home folder of the user."""

import gc
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from infra.emr.jvm import SMALL_JVM, with_archive

_FOREIGN = ("AIRFLOW_", "AWS_", "NIGHTJAR_", "PYSPARK_", "SPARK_")
# These belong to the machine, not to an account: TLS certificates, Hadoop's jars, environments of another Airflow.
_KEPT = ("AWS_CA_BUNDLE", "NIGHTJAR_HADOOP_JARS", "NIGHTJAR_MWAA")

for _name in [name for name in os.environ if name.startswith(_FOREIGN) and name not in _KEPT]:
    del os.environ[_name]

# Importing Airflow writes a configuration file. Removed when the interpreter exits.
_airflow_home = tempfile.TemporaryDirectory(prefix="nightjar-airflow-")

os.environ.update(
    AIRFLOW_HOME=_airflow_home.name,
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    SPARK_SUBMIT_OPTS=with_archive(SMALL_JVM),
    # Several processes train at the same time on few cores.
    OMP_NUM_THREADS="1",
)

# By default, hypothesis tries the same examples each time, so that no unrelated change fails by chance. With the other
# profile, `make test-random` tries new ones. No example has a time limit: its time depends on the load of the machine.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile("same")


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Fail a test that looks up a name other than this machine's, or connects to a public address."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if not _is_near(host):
        pytest.fail(f"the test reaches for {host!r}, and no test may reach a network")


def _is_near(host: str | bytes | None) -> bool:
    """Return whether a name or address is this machine's, or an address of a private network."""
    name = host.decode() if isinstance(host, bytes) else host or "localhost"
    try:
        return not ip_address(name.partition("%")[0]).is_global
    except ValueError:
        return name in ("localhost", socket.gethostname())


sys.addaudithook(_refuse_network)

_KEPT_TOGETHER = ("tests/infra/serve/", "tests/plugins/web/")
"""Folders whose files share a server."""
_BY_COMMAND = {"long": "make test-long", "planted": "make planted", "pages": "make test-pages"}
"""The command that runs the tests with a marker, which nothing else runs."""


class ByFile(LoadScopeScheduling):
    """Scheduling of pytest-xdist that hands out files on demand, and what `_KEPT_TOGETHER` names as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        return next((kept for kept in _KEPT_TOGETHER if nodeid.startswith(kept)), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Return the scheduling of tests to processes."""
    return ByFile(config, log)


def _apart(config: pytest.Config) -> list[str]:
    """Return the markers of the tests that another command runs."""
    return [marker for marker in _BY_COMMAND if marker not in config.option.markexpr]


def pytest_report_header(config: pytest.Config) -> str:
    """Say which tests do not run here."""
    return f"tests of other commands: {', '.join(_BY_COMMAND[marker] for marker in _apart(config))}"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Spare the garbage collector the 800,000 objects of the imported modules, which exist until the process ends."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what another command runs, mark what uses a Spark session, and put the files with slow tests first.

    Quick tests at the end keep every process of pytest-xdist busy until the end.
    """
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in _apart(config))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)
    longest_first = ("airflow", "spark", "slow")
    ranks: dict[Path, int] = {}
    for item in items:
        rank = next((rank for rank, name in enumerate(longest_first) if item.get_closest_marker(name)), 3)
        ranks[item.path] = min(rank, ranks.get(item.path, 3))
    items.sort(key=lambda item: ranks[item.path])
