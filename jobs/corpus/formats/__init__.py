"""Readers of corpus files that are not plain text."""
