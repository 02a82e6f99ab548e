"""Train a language model on an EMR cluster that exists only for the run. Each pipeline has a DAG of its own.

    preflight -> has_changed -> take_turn -> upload_package -> sweep -> create_cluster
                                                              (setup)      (setup)
              -> tokenize -> windows -> embed -> train -> generate -> score
                                     (optional)                    (optional)
              -> evaluate
                (optional)
              -> terminate_cluster ------> verdict
                    (teardown)            (teardown)
              -> pull_stats -> promote -> verdict

The same DAG runs on AWS and on a laptop. Only settings differ: `NIGHTJAR_LAKE` and the connection `aws_default`. The
pipelines differ only in the settings of their files; the DAG `train_llm` is the pipeline `default`.

A run that uses a model instead of training one (`use.model`) has one step, `generate` or `evaluate`. The other steps
are skipped, and no model is promoted.

A run that may promote its model waits in `take_turn` while another such run of the pipeline is in progress. `verdict`
ends the run's turn.

Five rules keep a run from leaving a cluster behind, and from starting one without need:

- `sweep` is a setup task, so clearing any step clears `sweep` too. `sweep` then terminates the run's earlier
  cluster.
- `terminate_cluster` is the teardown of both setups, so it also runs when `create_cluster` failed half-way.
- `verdict` runs last and checks the other tasks. It fails the run if `terminate_cluster` did not succeed, or if a
  cluster may still run.
- The DAG has no `dagrun_timeout`, because a timeout skips teardowns. Every wait has a time limit of its own.
- `pull_stats` and `promote` are not between the setups and their teardown, so clearing them starts no cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetAlias, Context, Metadata, chain, get_current_context, get_parsing_context, task
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.definitions.param import ParamsDict

from jobs.config import EVALUATE, SCORE, STEPS, of_run
from nightjar import aws, form, links, notifications, pipelines, settings
from nightjar.errors import input_errors_are_final
from nightjar.failures import causes_of, keep_cause
from nightjar.operators import (
    CreateClusterOperator,
    SparkStepOperator,
    TerminateClustersOperator,
    current_clusters,
    current_run,
)
from nightjar.pipelines import PipelineConfig
from nightjar.runs import started_by
from nightjar.tasks import package, promotion, results, unchanged
from nightjar.tasks import preflight as checks
from nightjar.waiting import TakeTurnOperator, end_turn, hold_turn

log = logging.getLogger(__name__)

SETTINGS = settings.load()
STATS = Asset("nightjar-stats")
"""The asset that a successful run updates if it has trained a model. The update contains the run's statistics."""
STATISTICS = AssetAlias("nightjar-statistics")
PROMOTION = Asset("nightjar-promotion")
"""The asset that is updated when a model becomes the champion of its pipeline.

The tasks have aliases, not assets, as outlets. Airflow updates an asset whenever a task with this outlet succeeds. It
updates the asset of an alias only if the task yields `Metadata` for the asset.
"""
PROMOTIONS = AssetAlias("nightjar-promotions")
STEP_DOCS = {
    "tokenize": "Train a tokenizer on the corpus and encode its documents into token shards.",
    "windows": "Split the documents into a training and a validation set, and index the windows of each.",
    "embed": "Train word2vec vectors for the tokens. Skipped unless `train.embeddings` is `embed`.",
    "train": "Train the model on the workers, with checkpoints and metrics in the lake.",
    "generate": "Generate text from the prompts with the trained model, or with the model that `use.model` names.",
    "score": "Score the model and the champion on the same documents. Skipped unless `windows.split` is `fixed`.",
    "evaluate": "Compute the loss of the model that `use.model` names. Skipped unless `use.task` is `evaluate`.",
}
AFTER_SKIPPED = ("train", "generate")
"""The pipeline steps that run even if the configuration skips the step before them."""


# Backfills are not allowed: they would start clusters side by side. A past date changes nothing, because a run reads
# the corpus as it is today. The types are names, because Airflow does not export its run types from a public module.
# Before Airflow 3.3 there is no type for runs that an operator starts.
RUN_TYPES = ("scheduled", "manual", "operator_triggered")
RETRIES, LONGEST_PAUSE = 5, timedelta(minutes=5)
"""Retries, and the longest pause between two retries, of tasks that create no cluster and run no step.

AWS or the lake may be unavailable for more than ten minutes. The user's mistakes are not retried.
"""


@task(retries=RETRIES, retry_exponential_backoff=2.0, max_retry_delay=LONGEST_PAUSE)
def preflight() -> dict[str, Any]:
    """Check the configuration, the corpus and the lake, and write the run's configuration to the lake."""
    context = get_current_context()
    with input_errors_are_final():
        run = SETTINGS.run(context["ti"].dag_id, str(context["run_id"]))
        pipeline = pipelines.find(run.pipeline, SETTINGS)
        notifications.check(pipeline.table.notify)
        given, skips = form.read_form(context["params"], pipeline), may_skip(context, pipeline)
        found = checks.prepare(given, run, skips_unchanged=skips)
    skipped = set(STEPS) - set(found.config.steps)
    tasks = context["dag"].task_dict
    planned = [name for name, each in tasks.items() if not each.is_teardown and name not in skipped]
    about = {"corpus": found.config.corpus, "preset": found.config.preset, "used_model": found.config.use.model}
    return {**about, "tasks": planned, "made_of": found.made_of, "same_as": found.same_as}


def may_skip(context: Context, pipeline: PipelineConfig) -> bool:
    """Return whether the pipeline's option `skip_unchanged` allows this run to be skipped when nothing has changed."""
    is_automatic = context["dag_run"].run_type.value in ("scheduled", "asset_triggered")
    return {"scheduled": is_automatic, "all": True, "never": False}[pipeline.table.skip_unchanged]


@task.short_circuit
def has_changed() -> bool:
    """Skip the run's work if `preflight` found an earlier successful run with the same text, code and settings."""
    same_as = get_current_context()["ti"].xcom_pull(task_ids="preflight")["same_as"]
    if same_as:
        log.info("Nothing has changed since run %s: no cluster is started, and nothing is paid", same_as)
    return same_as is None


@task
def upload_package() -> str:
    """Upload the package to the lake if the lake does not have this version yet, and return the package's folder."""
    with input_errors_are_final():
        return package.upload(SETTINGS.lake, SETTINGS.package_root)


@task(trigger_rule="all_done")
def pull_stats() -> dict[str, Any]:
    """Copy the run's statistics to the folder `NIGHTJAR_STATS_DIR`, even if a step failed."""
    context = get_current_context()
    return results.pull_stats(current_run(context), SETTINGS.stats_dir, causes_of(context, task_states(context)))


@task(trigger_rule="none_failed", outlets=[PROMOTIONS])  # steps that the configuration does not need are skipped
def promote() -> Generator[Metadata, None, dict[str, Any]]:
    """Make the trained model the champion if it beats the current champion. All steps must be complete."""
    context = get_current_context()
    run = current_run(context)
    config = of_run.read_config(run, aws.store())
    if not config.promotes:
        used = config.use.model
        why = f"no model was trained: {used} was used" if used else "an experiment: promotion.enabled is false"
        return {"judged": False, "promoted": False, "why": why, "model": None}
    hold_turn(context)
    request = f"{context['ti'].dag_id} {context['run_id']}"
    decision = promotion.promote(run, started_by(context), config, request=request)
    if decision["promoted"]:
        names = {"pipeline": run.pipeline, "run": run.folder, "model": decision["model"]}
        yield Metadata(PROMOTION, {**names, "why": decision["why"], "numbers": summary_of(context)}, PROMOTIONS)
    return decision


@task(retries=RETRIES, retry_exponential_backoff=2.0, max_retry_delay=LONGEST_PAUSE, outlets=[STATISTICS])
def verdict() -> Iterator[Metadata]:
    """Fail the run if a planned task did not succeed, or if a cluster of the run may still run.

    Airflow itself would report a run with skipped tasks, or with a failed teardown, as successful. This task also ends
    the run's turn, whatever happened before.
    """
    context = get_current_context()
    try:
        left_running = current_clusters(context).end_leftovers()
        plan = context["ti"].xcom_pull(task_ids="preflight") or {}
        planned = [*plan["tasks"], "terminate_cluster"] if plan else None
        is_idle = plan.get("same_as") is not None
        results.check_run(["has_changed"] if is_idle else planned, task_states(context), left_running)
        if is_idle:
            return
        run = current_run(context)
        has_trained = plan.get("used_model") is None
        if has_trained:
            unchanged.record(run, plan["made_of"], aws.store())
        results.log_next(run, aws.store(), settings.load().command)
        if has_trained:
            yield Metadata(STATS, {"pipeline": run.pipeline, **summary_of(context)}, STATISTICS)
    finally:
        end_turn(context)


def summary_of(context: Context) -> dict[str, Any]:
    """Return the statistics that the task `pull_stats` of a run returned, or {} if it returned none."""
    return context["ti"].xcom_pull(task_ids="pull_stats") or {}


def task_states(context: Context) -> dict[str, str | None]:
    """Return a dict from task id to state, for all tasks of a run."""
    run_id = context["run_id"]
    states: dict[str, str | None] = context["ti"].get_task_states(context["ti"].dag_id, run_ids=[run_id])[run_id]
    return states


def build(pipeline: PipelineConfig) -> DAG:
    """Return the DAG of a pipeline."""
    run_types = (*RUN_TYPES, "asset_triggered") if pipeline.table.assets else RUN_TYPES
    with DAG(
        pipeline.dag_id,
        description=f"Wrong: {pipeline.wrong}" if pipeline.wrong else pipeline.table.description,
        doc_md=__doc__,
        schedule=None if pipeline.wrong else pipeline.schedule(),
        catchup=False,
        is_paused_upon_creation=False,
        max_active_runs=pipeline.table.max_active_runs,
        allowed_run_types=[each for each in DagRunType if each.value in run_types],
        default_args={
            "retries": 1,
            "retry_delay": timedelta(seconds=SETTINGS.poll_seconds),
            "on_failure_callback": keep_cause,
        },
        tags=["nightjar", *pipeline.table.tags],
        on_failure_callback=notifications.on_failure(pipeline.table.notify) or None,
    ) as dag:
        add_tasks(pipeline)
    for name, each in dag.task_dict.items():
        own = each.operator_extra_links or (links.RUN_FOLDER,)
        each.operator_extra_links = (*own, *links.OF_TASKS.get(name, ()))
    # The form's fields are set last. Airflow copies params that a DAG has from the start into each of its tasks: the
    # serialized DAG would be twelve times as large, and parsing would take three times as long. Tasks read the params
    # of the DAG.
    dag.params = ParamsDict(form.trigger_form(pipeline, SETTINGS.lake))
    return dag


def add_tasks(pipeline: PipelineConfig) -> None:
    """Add the tasks and their order to the DAG of the enclosing `with` block."""
    decided = notifications.on_decision(pipeline.table.notify)
    budget = notifications.on_budget(pipeline.table.notify)
    turn = TakeTurnOperator(
        task_id="take_turn",
        wait_hours=pipeline.table.max_wait_hours,
        retries=RETRIES,
        retry_exponential_backoff=2.0,
        max_retry_delay=LONGEST_PAUSE,
        doc_md="Wait until no other run that may promote a model is in progress in the pipeline. Runs that cannot"
        " promote a model do not wait.",
    )
    package_uri = upload_package()
    sweep = TerminateClustersOperator(
        task_id="sweep",
        starts_again=True,
        retries=3,
        doc_md="Terminate the cluster that an earlier attempt of this run left behind.",
    )
    create = CreateClusterOperator(
        task_id="create_cluster",
        package_uri=package_uri,
        retries=2,
        doc_md="Create the run's EMR cluster and return its id. If all steps have already finished, create none.",
    )
    # A template, not `create.output`: a task directly after a setup may only have the trigger rule `all_success`.
    cluster_id = "{{ ti.xcom_pull(task_ids='create_cluster') }}"
    steps = {
        step: SparkStepOperator(
            task_id=step,
            step=step,
            cluster_id=cluster_id,
            package_uri=package_uri,
            trigger_rule="none_failed" if step in AFTER_SKIPPED else "all_success",
            on_failure_callback=[keep_cause, *budget],
            doc_md=STEP_DOCS[step],
        )
        for step in STEPS
    }
    evaluate = steps.pop(EVALUATE)  # independent of the other steps
    checked = preflight.override(on_failure_callback=[keep_cause, *budget])()
    pulled = pull_stats.override(on_success_callback=budget)()
    promoted = promote.override(on_success_callback=decided)()
    terminate = TerminateClustersOperator(
        task_id="terminate_cluster",
        starts_again=False,
        retries=3,
        doc_md="Terminate the run's cluster and wait until it has terminated.",
    )
    final = verdict()

    ends = [steps[SCORE], evaluate]
    chain(checked, has_changed(), turn, package_uri, sweep, create, *steps.values(), terminate, final)
    chain(create, evaluate, terminate)
    chain(ends, pulled, promoted, final)
    chain(ends, promoted)  # pull_stats succeeds even if a step failed; promote must not run then
    terminate.as_teardown(setups=[sweep, create], on_failure_fail_dagrun=True)
    final.as_teardown(on_failure_fail_dagrun=True)


ONLY = get_parsing_context().dag_id
"""The id of the DAG whose task this process runs. None if this process parses all DAGs."""
PIPELINES, _ = pipelines.load_all(SETTINGS, Path(__file__).parent)
DAGS = [build(each) for each in PIPELINES if ONLY in (None, each.dag_id)]
