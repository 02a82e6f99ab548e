"""The EMR operators and sensors of apache-airflow-providers-amazon, as a stock DAG uses them."""

from airflow.providers.amazon.aws.operators.emr import (
    EmrAddStepsOperator,
    EmrCreateJobFlowOperator,
    EmrModifyClusterOperator,
    EmrTerminateJobFlowOperator,
)
from airflow.providers.amazon.aws.sensors.emr import EmrJobFlowSensor, EmrStepSensor
from airflow.sdk import DAG

POLL = {"waiter_delay": 1}
GROUPS = [
    {"Name": "primary", "InstanceRole": "MASTER", "InstanceType": "m6i.xlarge", "InstanceCount": 1},
    {"Name": "core", "InstanceRole": "CORE", "InstanceType": "m6i.xlarge", "InstanceCount": 2, "Market": "ON_DEMAND"},
]


def step(name: str, script: str) -> dict:
    jar = {"Jar": "command-runner.jar", "Args": ["bash", "-c", script]}
    return {"Name": name, "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}


with DAG("provider", schedule=None):
    create = EmrCreateJobFlowOperator(
        task_id="create",
        job_flow_overrides={
            "Name": "of the provider",
            "ReleaseLabel": "emr-spark-8.0.0",
            "LogUri": "s3://lake/logs/",
            "Applications": [{"Name": "Spark"}],
            "Instances": {"InstanceGroups": GROUPS, "KeepJobFlowAliveWhenNoSteps": True},
            "JobFlowRole": "nodes",
            "ServiceRole": "service",
        },
    )
    modify = EmrModifyClusterOperator(task_id="modify", cluster_id=create.output, step_concurrency_level=2)
    add = EmrAddStepsOperator(
        task_id="add",
        job_flow_id=create.output,
        steps=[step("one", "echo one"), step("two", "sleep 1")],
        deferrable=True,
        **POLL,
    )
    wait = EmrStepSensor(
        task_id="wait",
        job_flow_id=create.output,
        step_id="{{ ti.xcom_pull(task_ids='add')[1] }}",
        poke_interval=1,
        deferrable=True,
    )
    terminate = EmrTerminateJobFlowOperator(task_id="terminate", job_flow_id=create.output, deferrable=True, **POLL)
    ended = EmrJobFlowSensor(task_id="ended", job_flow_id=create.output, target_states=["TERMINATED"], poke_interval=1)
    create >> modify >> add >> wait >> terminate >> ended
