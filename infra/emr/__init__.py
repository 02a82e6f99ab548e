"""The embedded EMR: Amazon EMR and S3 on one machine, for development and tests.

It is one process that answers the EMR and S3 APIs and really executes the steps of a cluster. Any AWS client can use
it: boto3, the AWS CLI, Airflow's EMR operators.

Start it, and point the AWS SDKs to it::

    nightjar emr --port 5555 --bucket lake
    export AWS_ENDPOINT_URL=http://127.0.0.1:5555

or use it from Python::

    with embedded_emr(EmrSettings(buckets=("lake",))) as endpoint_url:
        emr = boto3.client("emr", endpoint_url=endpoint_url, region_name="us-east-1")

The server is moto's, which answers the API from memory. moto alone records clusters and steps but runs nothing: a step
stays PENDING or RUNNING for ever. This package adds:

- Clusters start, run their steps one at a time, wait for more steps, and terminate. Idle timeouts, termination
  protection and ``ActionOnFailure`` work as on AWS.
- A step of ``command-runner.jar`` runs its command as a process tree of its own, in a folder of its own.
  ``spark-submit`` uses the pip package of Spark: options for YARN are translated to a local master, and files at
  ``s3://`` and ``file://`` URIs are downloaded first.
- CancelSteps and TerminateJobFlows end all processes of a step. Nothing is left if the server itself is killed.
- Logs are uploaded to the cluster's LogUri in EMR's layout. A failed step has ``FailureDetails`` with its cause.
- The auto-termination policy works. An unknown action or id is an error of the client, as on AWS.

Limits: bootstrap actions are recorded but not run, because a step uses this machine's Python. There are no instances,
no YARN and no HDFS. Anyone who can reach the port can run commands as the user of the server: keep it on loopback.
"""
