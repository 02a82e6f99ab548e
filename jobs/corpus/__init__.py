"""Reads the text of a corpus: documents of any file format, checked, filtered and without duplicates."""
