"""A stand-in for the job in tests of the DAG: the same command line and output files, without training a model."""
