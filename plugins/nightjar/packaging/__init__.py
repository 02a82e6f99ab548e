"""What makes the package that goes to the cluster, and what starts it there."""
