"""The code of the DAG's tasks other than clusters and Spark steps."""
