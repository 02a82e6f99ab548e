"""A lake on this machine: its folders, their owner, and the sample corpus in it."""
