"""The permissions that the pages require of Airflow's users."""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends

from nightjar.settings import DAG_ID

READ_RUNS = Depends(requires_access_dag("GET", DagAccessEntity.RUN, DAG_ID))
"""The permission to read the runs of the DAG `train_llm`. It is also the permission to read all runs of the lake."""
READ_LOGS = Depends(requires_access_dag("GET", DagAccessEntity.TASK_LOGS, DAG_ID))
"""The permission to read the task logs of the DAG `train_llm`."""
