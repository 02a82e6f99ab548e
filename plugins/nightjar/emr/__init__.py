"""EMR: requests, clusters, steps."""
