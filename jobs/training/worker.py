"""One rank of an all-reduce training: it joins the worker group, resumes from the latest checkpoint, and trains."""

from __future__ import annotations

import logging

import torch

from jobs.engine.base import WorkerContext
from jobs.training.checkpoint import TrainingState, latest_checkpoint, load_checkpoint
from jobs.training.job import TrainingJob, TrainingResult
from jobs.training.learner import Learner, choose_device
from jobs.training.loop import Loop
from jobs.training.memory import keep_freed_memory, peak_resident_bytes
from jobs.training.process_group import Group, join_group
from jobs.training.step import Trainer
from jobs.training.supervision import supervise
from jobs.training.warm_start import initial_model

log = logging.getLogger(__name__)


def train_worker(context: WorkerContext, job: TrainingJob, until: int | None = None) -> TrainingResult:
    """Train with the other workers of the group until the schedule is over, or until the step `until`.

    Returns:
        The result, the same on each worker; it is not complete if a worker was asked to shut down.

    Raises:
        NightjarError: if training diverged, or if the dataset or a checkpoint cannot be used.
    """
    keep_freed_memory()
    torch.set_num_threads(context.threads)  # PySpark sets OMP_NUM_THREADS=1 for any number of cores
    config = job.config.train
    # A worker that hangs is killed after `step_timeout_seconds`; until then the others must wait for it.
    group_timeout = max(config.gang_timeout_seconds, config.step_timeout_seconds + 60)
    with (
        supervise(context, job.run, config.step_timeout_seconds) as supervision,
        join_group(context, group_timeout) as group,
    ):
        data = job.open_data()
        learner = Learner(initial_model(job, data.shape), config, choose_device(context.rank))
        trainer = Trainer.of(config, data, learner, group, supervision.watchdog)
        state = _resume(job, learner, group)
        is_complete = Loop(job, trainer, state, supervision.shutdown).run(until)
        return TrainingResult(
            is_complete=is_complete,
            num_parameters=learner.model.num_parameters,
            dtype=learner.dtype_name,
            device=learner.device.type,
            peak_resident_bytes=int(group.largest(peak_resident_bytes())),
            stopped_early=state.has_stopped_improving(config),
            best_step=state.best_step,
            best_valid_loss=state.best_valid_loss,
        )


def _resume(job: TrainingJob, learner: Learner, group: Group) -> TrainingState:
    """Load the latest intact checkpoint, which rank 0 chooses for all workers; else return the initial state."""
    found = latest_checkpoint(job.run) if group.is_first else None
    step = int(group.largest(-1 if found is None else found))
    if step < 0:
        return TrainingState(job.settings_hash())
    if group.is_first:
        log.info("resuming from the checkpoint of step %d", step)
    return load_checkpoint(job.run, step, job.settings_hash(), learner.model, learner.optimizer)
