"""Training: order of samples, optimization, evaluation, checkpoints, metrics."""
