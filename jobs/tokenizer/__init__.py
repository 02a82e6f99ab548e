"""Tokenizers: vocabularies, byte-level BPE, and ``tokenizer.json``."""
