"""The embedded EMR: Amazon EMR and S3 on one machine, for development and tests.

It is one process that answers the EMR and S3 APIs and really executes the steps of a cluster. Any AWS client can use
it: boto3, the AWS CLI, Airflow's EMR operators. README.md in this folder says what it does and what it does not do.

Start it, and point the AWS SDKs to it::

    nightjar emr --port 5555 --bucket lake
    export AWS_ENDPOINT_URL=http://127.0.0.1:5555

or use it from Python::

    with embedded_emr(EmrSettings(buckets=("lake",))) as endpoint_url:
        emr = boto3.client("emr", endpoint_url=endpoint_url, region_name="us-east-1")

Anyone who can reach the port can run commands as the user of the server, so let the server listen on loopback only.
"""
