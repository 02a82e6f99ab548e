"""Set up the virtual environment and Java."""
