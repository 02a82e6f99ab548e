"""Tokens: vocabularies, encoding, and streams of tokens."""
