"""The package that goes to the cluster: tokenization, windows, training and generation of a language model.

Runs in the job's environment, on a laptop (``python -m jobs run``) or on Spark (``spark-submit launcher.py``).
Airflow imports of it only what is light: `jobs.config` with its `jobs.config.sections`, `jobs.lake`, `jobs.errors`
and `jobs.lake.atomic`.
"""

import os

# Before torch is loaded: its threads (libgomp) wait for each other for microseconds, then sleep. By default they spin
# long; on cores that others use too, a training step on two threads took ten times as much time.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
