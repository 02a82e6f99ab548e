"""The sections of a run's configuration, one frozen model each."""
