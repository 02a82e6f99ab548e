"""The command line of the job, one module for each group of commands: ``python -m jobs --help``.

The modules import their libraries inside the commands, so that ``--help`` and completion stay fast.
"""
