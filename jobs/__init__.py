"""The package that goes to the cluster: from text to a trained language model, and to text that it writes.

It runs on one machine (``python -m jobs run``) and on a Spark cluster (``spark-submit launcher.py``). Airflow imports
only the folders of it that need neither torch, pyspark nor pyarrow, such as `jobs.config`.
"""

import os

# Read when torch is imported: its threads (libgomp) then spin for microseconds only while they wait, and sleep. By
# default they spin longer: on two cores shared with other processes, a training step took ten times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
