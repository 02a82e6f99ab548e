"""Engines, which run the functions of a pipeline step on this machine or on Spark."""
