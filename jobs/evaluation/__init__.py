"""The evaluation of models: what they lose on the frozen documents of a pipeline, or on any text."""
