"""The evaluation of models: their losses on the evaluation set of a pipeline, or on any text."""
