"""Embeddings of tokens: word2vec training, files, and the nearest neighbours of a token."""
