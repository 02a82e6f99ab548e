"""The Airflow side of Nightjar: operators, a trigger and the code of the DAGs' other tasks. Imported as `nightjar`.

It runs in Airflow's environment, which has none of the job's heavy libraries. Of `jobs` it imports only light modules:
configuration, errors and the layout of the lake.

    settings     settings from the environment        form        the DAG's trigger form
    operators    create clusters, run steps           triggers    wait for a step
    emr          EMR requests, clusters and steps     packaging   build what runs on the cluster
    tasks        code of the DAG's other tasks        aws         AWS clients, files in the lake
    errors       how a task fails
"""
