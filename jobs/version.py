"""The version of Nightjar. It equals that in ``pyproject.toml``, a file that the package on a cluster does not have."""

VERSION = "0.1.0"
