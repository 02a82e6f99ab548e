"""The embedded EMR: an EMR and S3 endpoint in one process, whose steps are real processes.

moto answers the AWS API and keeps its state in memory; this package gives moto's clusters what they lack: they start,
run their steps one after another, ship the logs, react to failures and end. A step is a real ``spark-submit`` (or any
other command) in its own process tree and its own folder, with its code from where it was uploaded.

It runs on the machine of whoever develops or tests, never on AWS::

    python -m infra.emr --port 5555 --bucket lake      # then AWS_ENDPOINT_URL=http://127.0.0.1:5555

Which module does what:

    settings    what can be chosen          server      start and stop, as a library
    responses   the API beyond moto's       models      clusters and steps: their states, one thread for each cluster
    command     what a step starts          execution   one step from its first file to its last log
    guard       ends a whole process tree   store       s3:// and file:// alike
"""
