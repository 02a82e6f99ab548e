"""What the DAG's tasks do, other than run a Spark step."""
