"""Datasets of tokens and windows: making, publishing, reusing and reading them."""
