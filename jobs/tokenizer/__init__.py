"""Trains, reads and applies tokenizers, which are stored as ``tokenizer.json``."""
