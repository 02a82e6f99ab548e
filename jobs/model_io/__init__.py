"""Models as files: the model folder, archives, GGUF, the model card."""
