"""The version of Nightjar, which is that of ``pyproject.toml``: a package on a cluster has no such file."""

VERSION = "0.1.0"
