"""EMR: requests to its API, clusters and steps."""
