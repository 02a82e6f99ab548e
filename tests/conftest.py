"""A hermetic environment for every test: nothing of the user's accounts, settings or home folder is seen or touched."""

import os
import tempfile

_FOREIGN = ("AIRFLOW_", "AWS_", "NIGHTJAR_", "PYSPARK_", "SPARK_")
# Where TLS certificates come from is the machine's business, not an account's.
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
    # Several processes train at once on few cores.
    OMP_NUM_THREADS="1",
)
