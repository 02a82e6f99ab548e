"""The results of steps and runs: manifests, a local copy of the statistics, and the check that all tasks succeeded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.config import Config
from jobs.errors import DamagedError, NightjarError, counted
from jobs.lake.layout import MANIFEST, Lake, Run
from jobs.lake.manifest import Manifest
from jobs.lake.models import read_used
from jobs.lake.names import confined
from jobs.lake.store import Store
from jobs.lake.strict_json import finite
from jobs.lake.uri import join, local_path, readable, relative_name, to_uri
from jobs.metrics import Show, chosen, names
from jobs.metrics.stats import SUMMARY_METRICS, BillStats
from nightjar import aws
from nightjar.errors import FinalError, MayStillRunError
from nightjar.tasks import bill
from nightjar.tasks.report import write_report

log = logging.getLogger(__name__)

SUMMARY = (*(name for _, name in SUMMARY_METRICS), "seconds", *names(BillStats, Show.SUMMARY))
"""The metrics that the task ``pull_stats`` returns. `seconds` are the seconds of each pipeline step."""


def verify_step(step: str, run: Run, store: Store) -> Manifest:
    """Return the manifest of the output of `step`, after checking that the output is complete (`verify_folder`)."""
    return verify_folder(_output_uri(step, run, store), store)


def find_finished(step: str, run: Run, store: Store) -> Manifest | None:
    """Return the manifest of a step's output.

    Return None if the output is incomplete, or if it was made with another model than the run's current one.
    """
    try:
        manifest = verify_step(step, run, store)
        model = manifest.inputs.get("model")
        return manifest if model is None or model == _present_model(run, store) else None
    except DamagedError:
        return None


def _present_model(run: Run, store: Store) -> str | None:
    """Return the hash of the weights of the model that a run uses or has trained, or None without a model.

    Raises:
        DamagedError: if a file of the trained model is missing.
    """
    if used := read_used(run, store):
        return used.fingerprint
    manifest = store.read_manifest(run.model)
    if manifest is not None:
        store.verify_sizes(run.model, manifest)
    return manifest.fingerprint if manifest else None


def unfinished_steps(config: Config, run: Run, store: Store) -> list[str]:
    """Return the steps of a run that have no complete output."""
    return [step for step in config.steps if find_finished(step, run, store) is None]


def verify_folder(folder_uri: str, store: Store) -> Manifest:
    """Return the manifest of a folder, after checking the sizes of its files. The next reader checks their hashes.

    Raises:
        DamagedError: if there is no manifest, or a file that it lists is missing or has another size.
    """
    manifest = store.read_manifest(folder_uri)
    if manifest is None:
        raise DamagedError(f"{join(folder_uri, MANIFEST)}: missing, though the step has ended; clear the step's task")
    store.verify_sizes(folder_uri, manifest)
    return manifest


def _output_uri(step: str, run: Run, store: Store) -> str:
    """Return the output folder of a step. The step is complete if the folder has a manifest."""
    folders = {"train": run.train, "generate": run.generate, "score": run.score, "evaluate": run.evaluation}
    if step in folders:
        return folders[step]
    kind = {"tokenize": "tokens", "windows": "windows", "embed": "embeddings"}[step]
    try:
        fingerprint = store.read_json(run.datasets)[kind]
    except (FileNotFoundError, KeyError, TypeError):
        fingerprint = None
    if not isinstance(fingerprint, str) or not fingerprint:
        raise DamagedError(
            f"{run.datasets}: has no dataset '{kind}', though the step {step} has ended; clear the step's task"
        )
    return Lake(run.lake_uri).dataset(kind, fingerprint)


def pull_stats(run: Run, stats_dir: Path, failed: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    """Write the run's report, and copy the run's statistics to a folder in `stats_dir`. Return a summary for XCom.

    The folder's path below `stats_dir` is the same as in the lake: ``<stats_dir>/<project>/<pipeline>/<run>/``.

    Args:
        run: The run.
        stats_dir: The folder for the copies of all runs.
        failed: A dict from each failed task to the cause, or to None if the cause is not known. The report gives such a
            cause if the run's own files have none.

    Raises:
        DamagedError: if the name of a file leads out of the folder of statistics. All other files are copied first.
    """
    store, folder_uri = aws.store(), join(to_uri(str(stats_dir)), run.folder)
    bill.record_tolerantly(run, store)
    write_report(run, store, failed)
    names, refused = [], list[DamagedError]()
    for name in (relative_name(file.uri, run.stats) for file in store.list_files(run.stats)):
        try:
            store.copy(confined(run.stats, name), confined(folder_uri, name))
            names.append(name)
        except DamagedError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    folder = local_path(folder_uri)
    stats = store.read_json(join(folder_uri, "stats.json")) if "stats.json" in names else {}
    summary = to_storable_json(chosen(stats, SUMMARY))
    if (stats.get("steps") or {}).get("train", {}).get("stopped_by_budget"):
        summary["stopped_by_budget"] = True
    log.info("Copied %s of statistics to %s", counted(len(names), "file"), folder)
    for key, value in summary.items():
        log.info("%20s  %s", key, value)
    return {"run_id": run.run_id, "stats_dir": str(folder), **summary}


def to_storable_json(value: Any) -> Any:
    """Return a JSON value in a form that any database of Airflow can store. Numbers that are not finite become None.

    PostgreSQL refuses NUL characters, lone surrogates, NaN and infinities. A model may generate NUL characters.
    """
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, list):
        return [to_storable_json(each) for each in value]
    if isinstance(value, dict):
        return {to_storable_json(key): to_storable_json(each) for key, each in value.items()}
    return finite(value)


def read_stats(run: Run, store: Store) -> dict[str, Any]:
    """Return the run's merged statistics."""
    uri = join(run.stats, "stats.json")
    try:
        stats: dict[str, Any] = store.read_json(uri)
    except FileNotFoundError:
        raise NightjarError(f"{uri}: missing, though all steps are complete") from None
    return stats


def check_run(planned: Sequence[str] | None, states: Mapping[str, str | None], left_running: Sequence[str]) -> None:
    """Check that every planned task and the task that ends the cluster succeeded, and that no cluster may still run.

    If a user marks a run as failed, Airflow skips the run's open tasks. Without this check, the run would then count
    as successful.

    Raises:
        FinalError: if a task did not succeed. The message names these tasks and the clusters that may still run.
        MayStillRunError: if all tasks succeeded, but a cluster may still run. A retry tries to end the cluster.
    """
    if planned:
        missed = [f"{name} is {states.get(name)}" for name in planned if states.get(name) != "success"]
    else:
        missed = [f"no tasks are planned: the task preflight is {states.get('preflight')}"]
    if missed:
        raise FinalError("; ".join([*missed, *left_running]))
    if left_running:
        raise MayStillRunError("; ".join(left_running))
    log.info("All %d planned tasks succeeded", len(planned or ()))


def log_next(run: Run, store: Store, command: str) -> None:
    """Log the next commands after a successful run, for the model that the run trained or used.

    `command` is what people type to start `nightjar`.
    """
    used = read_used(run, store)
    if used is not None:
        lake = readable(run.lake_uri)
        log.info("Next: read the results on the page of the run, or write text with the model that it used")
        log.info('  %s runs show %s --lake "%s"', command, run.folder, lake)
        log.info('  %s sample --lake "%s" --model "%s" --prompt "The man"', command, lake, readable(used.uri))
        return
    place = f'--lake "{readable(run.lake_uri)}" --model {run.folder}'
    log.info("Next: read the text under Extra Links of the task generate, or write more with the command")
    log.info('  %s sample %s --prompt "The man"', command, place)
    log.info("  %s export %s --format gguf --output model.gguf", command, place)
