"""Checks of an AWS account before money is spent on it: ``nightjar aws-check``."""
