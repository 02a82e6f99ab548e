"""An isolated environment for every test, without the accounts, settings and home folder of the user."""

import os
import tempfile
from pathlib import Path

import pytest
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

_KEPT_TOGETHER = (
    "tests/dags/test_headless.py",
    "tests/dags/test_live",
    "tests/infra/aws/test_deployment.py",
    "tests/infra/serve/",
    "tests/jobs/cli/test_run.py",
    "tests/jobs/corpus/test_formats.py",
    "tests/jobs/engine/test_both.py",
    "tests/jobs/engine/test_spark.py",
    "tests/plugins/web/",
)
"""Files and folders whose tests share a fixture that takes half a minute of CPU time, such as a Spark session."""
_BY_COMMAND = {"live": "make test-live", "planted": "make planted", "pages": "make test-pages"}
"""The command that runs the tests with a marker, which are skipped elsewhere."""


class OneByOne(LoadScopeScheduling):
    """Scheduling of pytest-xdist that hands out single tests on demand, and what `_KEPT_TOGETHER` names as a whole.

    pytest-xdist's own `--dist loadgroup` has no effect with pytest 9.2, which ignores the group in a test's name.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((kept for kept in _KEPT_TOGETHER if nodeid.startswith(kept)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneByOne:
    """Return the scheduling of tests to processes."""
    return OneByOne(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test that uses a Spark session by a fixture of that name, and put the files with long tests first.

    Short tests at the end keep every process of pytest-xdist busy until the end.
    """
    for item in items:
        for marker, command in _BY_COMMAND.items():
            if item.get_closest_marker(marker) and marker not in config.option.markexpr:
                item.add_marker(pytest.mark.skip(reason=f"takes minutes: {command}"))
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)
    longest_first = ("airflow", "spark", "slow")
    ranks: dict[Path, int] = {}
    for item in items:
        rank = next((rank for rank, name in enumerate(longest_first) if item.get_closest_marker(name)), 3)
        ranks[item.path] = min(rank, ranks.get(item.path, 3))
    items.sort(key=lambda item: ranks[item.path])
