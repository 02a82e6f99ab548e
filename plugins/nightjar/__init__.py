"""The Airflow side of Nightjar: operators, a trigger and the code of the DAGs' other tasks. Imported as `nightjar`.

It runs in Airflow's environment, which has none of the job's heavy libraries. Of `jobs` it imports only light modules:
configuration, errors and the layout of the lake.
"""
