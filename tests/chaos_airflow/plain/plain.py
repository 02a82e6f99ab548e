"""The steps of a run by the operators of Airflow's Amazon provider alone, for comparison with `train_llm`.

    create -> add -> wait -> terminate

As in most DAGs that use these operators, the cluster is terminated by an ordinary last task that always runs. The
requests are in the run's configuration.
"""

from __future__ import annotations

from airflow.providers.amazon.aws.operators.emr import (
    EmrAddStepsOperator,
    EmrCreateJobFlowOperator,
    EmrTerminateJobFlowOperator,
)
from airflow.providers.amazon.aws.sensors.emr import EmrStepSensor
from airflow.sdk import DAG

with DAG("plain", schedule=None, render_template_as_native_obj=True):
    create = EmrCreateJobFlowOperator(task_id="create", job_flow_overrides="{{ dag_run.conf['flow'] }}")
    add = EmrAddStepsOperator(task_id="add", job_flow_id=create.output, steps="{{ dag_run.conf['steps'] }}")
    wait = EmrStepSensor(
        task_id="wait",
        job_flow_id=create.output,
        step_id="{{ ti.xcom_pull(task_ids='add')[-1] }}",
        poke_interval=1,
    )
    terminate = EmrTerminateJobFlowOperator(
        task_id="terminate", job_flow_id=create.output, trigger_rule="all_done", waiter_delay=1
    )
    create >> add >> wait >> terminate
