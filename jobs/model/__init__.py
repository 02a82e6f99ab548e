"""The models as they are trained: layers, losses, and the kinds to choose from."""
