"""What Nightjar runs on: the embedded EMR of a laptop, and the descriptions of the real one."""
