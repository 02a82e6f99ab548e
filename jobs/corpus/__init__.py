"""Reads the documents of a corpus from files of any supported format, checks and filters them, and drops duplicates."""
