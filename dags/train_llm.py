"""The DAG `train_llm`: a language model, trained on a Spark cluster that exists only while it trains.

    preflight -> upload_package -> sweep -> create_cluster -> tokenize -> windows -> embed -> train -> generate
                                  (setup)      (setup)                          (if asked for)
              -> pull_stats -> promote -> terminate_cluster -> verdict
                                               (teardowns)

Wiring only: what the tasks do lies in ``plugins/nightjar``. Laptop and AWS differ in settings (`nightjar.settings`).
Three choices keep clusters from leaking. `sweep` is a setup, so that clearing a task clears it along: it ends the
run's earlier cluster. The teardown follows both setups, so it also runs when creating the cluster failed half-way.
There is no ``dagrun_timeout``, which would skip the teardowns: every wait has its own limit.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, CronTriggerTimetable, Metadata, chain, get_current_context, task

from jobs.errors import InputError
from jobs.lake.layout import STEPS
from nightjar import form, settings
from nightjar.errors import UserError
from nightjar.operators import CreateClusterOperator, EndClustersOperator, SparkStepOperator, current_run
from nightjar.tasks import package, promotion, results
from nightjar.tasks import preflight as checks

SETTINGS = settings.load()
STATS = Asset("nightjar-stats")


@task(retries=0)
def preflight() -> dict[str, Any]:
    """Resolve the configuration, check what can be known before a cluster exists, and plan the tasks."""
    context = get_current_context()
    try:
        config = checks.prepare(form.read_form(context["params"], SETTINGS.cluster), current_run(context))
    except InputError as error:
        raise UserError(str(error)) from None
    left_out = set(STEPS) - set(config.steps)
    planned = [name for name, each in dag.task_dict.items() if not each.is_teardown and name not in left_out]
    return {"corpus": config.corpus, "preset": config.preset, "tasks": planned}


@task
def upload_package() -> str:
    """Put the job into the lake, unless this very code is there; return its folder."""
    return package.upload(SETTINGS.lake, SETTINGS.package_root)


@task(trigger_rule="all_done", outlets=[STATS])
def pull_stats() -> Generator[Metadata, None, dict[str, Any]]:
    """Copy the statistics to this machine, whatever happened to the steps."""
    summary = results.pull_stats(current_run(get_current_context()), SETTINGS.stats_dir)
    yield Metadata(STATS, extra=summary)
    return summary


@task
def promote() -> dict[str, Any]:
    """Make the model champion if it is better than the current one."""
    return promotion.promote(current_run(get_current_context()))


@task(retries=0)
def verdict() -> None:
    """Fail the run if a planned task did not succeed: one that is marked failed would else end as success."""
    context = get_current_context()
    task_instance, run_id = context["ti"], context["run_id"]
    plan = task_instance.xcom_pull(task_ids="preflight") or {}
    results.check_tasks(plan.get("tasks"), task_instance.get_task_states(dag.dag_id, run_ids=[run_id])[run_id])


with DAG(
    "train_llm",
    description="Trains a language model on a Spark cluster that exists only while it trains",
    doc_md=__doc__,
    schedule=CronTriggerTimetable(SETTINGS.schedule, timezone="UTC") if SETTINGS.schedule else None,
    catchup=False,
    max_active_runs=1,
    params=form.trigger_form(SETTINGS.corpus),
    default_args={"retries": 1, "retry_delay": timedelta(seconds=SETTINGS.poll_seconds)},
    tags=["nightjar"],
) as dag:
    uploaded = upload_package()
    sweep = EndClustersOperator(task_id="sweep")
    create = CreateClusterOperator(task_id="create_cluster", package_uri=uploaded)
    # As a template, since what follows directly on a setup may have no other trigger rule than `all_success`.
    cluster_id = "{{ ti.xcom_pull(task_ids='create_cluster') }}"
    steps = [
        SparkStepOperator(
            task_id=step,
            step=step,
            cluster_id=cluster_id,
            package_uri=uploaded,
            # The step before may be skipped: not every run asks for embeddings.
            trigger_rule="none_failed" if step == "train" else "all_success",
        )
        for step in STEPS
    ]
    promoted = promote()
    terminate = EndClustersOperator(task_id="terminate_cluster", retries=3)
    judged = verdict()

    chain(preflight(), uploaded, sweep, create, *steps, pull_stats(), promoted, terminate, judged)
    chain(steps[-1], promoted)  # pull_stats succeeds whatever happened, promote needs a complete run
    terminate.as_teardown(setups=[sweep, create], on_failure_fail_dagrun=True)
    judged.as_teardown(on_failure_fail_dagrun=True)
