"""Trains embeddings of tokens by word2vec, reads and writes them, and finds the nearest neighbours of a token."""
