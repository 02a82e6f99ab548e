"""Ratios against peers, one command each: `make bench-<name>`. Figures and the machine are in README.md."""
