"""Stands in for the job where tests are about the DAG: the same command line and files, no tokens and no model."""
