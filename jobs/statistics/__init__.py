"""Reports of a run: statistics and curves, as files for people and programs."""
