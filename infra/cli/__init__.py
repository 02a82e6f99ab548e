"""The console command ``nightjar``: the job's commands, the embedded EMR, and AWS.

The modules import their libraries inside the commands, so that ``--help`` and completion stay fast.
"""
