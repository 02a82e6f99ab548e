"""The pages in Airflow's API server: the runs of the lake, and the files and logs of runs.

A page is a route of a module's ``router``, which `app` includes, and a template in ``templates/``. A route depends on a
permission of `access` and returns a response of `responses`.
"""
