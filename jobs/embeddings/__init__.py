"""Embeddings: one vector for each token, learned from which tokens stand near each other."""
