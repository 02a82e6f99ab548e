"""What the DAGs are made of: operators, a trigger, and the steps' neighbours in Airflow. Imported as `nightjar`.

Runs in Airflow's environment, which has none of the job's libraries: of `jobs` it imports only configuration, paths and
errors. Which module does what:

    settings    the environment's choices           form        the trigger form
    storage     files of the lake, s3:// or file    manifests   what a finished step left
    emr         requests, names and tags (pure)     clusters    find, create and end clusters
    steps       find, submit, cancel and explain    operators   create_cluster, a Spark step, terminate_cluster
    triggers    wait for a step                     preflight   what is known before a cluster exists
    package     upload the job                      results     statistics and verdict
    aws         clients of AWS                      champion    promotion of a model
    machines    a cluster's machines (pure)
"""
