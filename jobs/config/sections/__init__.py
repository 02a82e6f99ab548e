"""The sections of a run's configuration, one model each. Light: pydantic and the standard library alone."""
