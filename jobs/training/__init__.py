"""Training: the all-reduce loop, rounds of local steps, checkpoints, metrics and supervision."""
