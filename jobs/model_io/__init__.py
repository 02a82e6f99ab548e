"""Models as files: the model folder, its zip file and model card, and GGUF."""
