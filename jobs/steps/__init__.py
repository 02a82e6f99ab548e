"""The steps of the pipeline. Each calls the library modules and returns its statistics."""
