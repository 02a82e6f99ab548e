"""Supervision of a training worker: a deadline for each step, and requests to shut down."""
