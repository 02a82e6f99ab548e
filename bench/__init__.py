"""Benchmarks against other libraries, one command each: `make bench-<name>`. README.md has the results."""
