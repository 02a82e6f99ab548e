"""The demo: the whole pipeline on this machine, on real text."""
