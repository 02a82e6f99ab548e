"""Supervision of a worker: deadlines of its steps, and requests to shut down."""
