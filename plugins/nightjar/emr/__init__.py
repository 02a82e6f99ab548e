"""EMR: requests to its API (`requests`, `nodes`), clusters and steps."""
