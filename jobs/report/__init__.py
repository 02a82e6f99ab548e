"""Reports: statistics as files for people and programs."""
