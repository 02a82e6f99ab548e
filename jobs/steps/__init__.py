"""The steps: what is read, done and published; thin, the work is in the library modules."""
