"""The package that goes to the cluster: tokenization, windows, training and generation of a language model.

Runs in the job's environment, on a laptop (``python -m jobs run``) or on Spark (``spark-submit launcher.py``).
Airflow imports of it only what is light: `jobs.config` with its `jobs.sections`, `jobs.paths`, `jobs.errors`
and `jobs.atomic`.
"""
