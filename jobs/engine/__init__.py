"""Engines run a step's functions: on this machine, or on Spark."""
