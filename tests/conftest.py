"""An isolated environment for every test, without the accounts, settings and home folder of the user."""

import os
import tempfile

import pytest

from infra.emr.command import JVM_OPTIONS

_FOREIGN = ("AIRFLOW_", "AWS_", "NIGHTJAR_", "PYSPARK_", "SPARK_")
# The location of TLS certificates belongs to the machine, not to an account.
_KEPT = ("AWS_CA_BUNDLE",)

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
    SPARK_SUBMIT_OPTS=JVM_OPTIONS,
    # Several processes train at the same time on few cores.
    OMP_NUM_THREADS="1",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses a Spark session by a fixture of that name, and put the longest tests first.

    Short tests at the end keep every process of pytest-xdist busy until the end.
    """
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)
    longest_first = ("airflow", "spark", "slow")
    items.sort(key=lambda item: next((i for i, name in enumerate(longest_first) if item.get_closest_marker(name)), 3))
