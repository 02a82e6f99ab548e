"""The pages in Airflow's API server: the runs of the lake, and the files and logs of runs.

A page consists of a FastAPI route and a template in ``templates/``. Each module with routes has a ``router``, and `app`
includes all routers. A route depends on a permission from `access`, and returns a response made by `responses`.
"""
