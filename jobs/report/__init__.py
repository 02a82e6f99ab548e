"""Reports of a run: statistics, curves and progress, as files for people and programs."""
