"""The steps of the pipeline. The function `run` of each module executes a step and returns the step's statistics."""
