"""The evaluation of models on the frozen documents of a pipeline: which these are, and what models lose on them."""
