"""The package that runs on the cluster: it trains a language model on text, and generates text with the model.

It also runs on one machine (``python -m jobs run``). On a cluster, ``spark-submit launcher.py`` starts it. Airflow
imports only those folders of the package that need neither torch, pyspark nor pyarrow, such as `jobs.config`.
"""

import os

# libgomp, which runs torch's threads, reads this when torch is imported. With it, waiting threads spin for microseconds
# and then sleep. By default they spin longer: on two cores shared with other processes, a training step took ten times
# as long.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
