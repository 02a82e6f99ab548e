"""Set-up of the virtual environment and of Java."""
