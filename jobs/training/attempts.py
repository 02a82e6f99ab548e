"""The attempts of a training: after a lost worker or a divergence, training resumes from the last checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from jobs.config import TrainConfig
from jobs.engine.base import Engine
from jobs.errors import DivergedError, InputError, MemoryLimitError, StoppedError, WorkerLostError, counted, reading
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.prices.budget import describe_budget, seconds_for_training
from jobs.training.checkpoint import latest_checkpoint, trained_seconds
from jobs.training.job import TrainingJob, TrainingResult
from jobs.training.local_sgd.driver import Rounds
from jobs.training.order import batch_of_step
from jobs.training.supervision.shutdown import ShutdownSignal, forward
from jobs.training.worker import train_worker

log = logging.getLogger(__name__)

LEAST_SECONDS = 1e-3
"""The training time, in seconds, that an attempt gets when the budget is used up. It then ends after one step."""
_MOST_MEMORY_LOSSES = 1
"""How often training is repeated in containers of the same size after one was killed for using too much memory."""


def train_until_complete(job: TrainingJob, engine: Engine, progress: Callable[[str], None]) -> TrainingResult:
    """Train until the schedule is over, in as many attempts as `train.max_restarts` and `train.max_rollbacks` allow."""
    skipped = job.record.skipped_batches if job.record else ()
    attempts = Attempts(job.run, job.config.train, progress, skipped)
    with forward(job.run) as shutdown:
        while True:
            budget_seconds = _budget_seconds(job, progress)
            try:
                attempt = replace(job, skipped_batches=attempts.skipped, budget_seconds=budget_seconds)
                result = _attempt(attempt, engine, shutdown)
            except WorkerLostError as error:
                attempts.lost(error)
                continue
            except DivergedError as error:
                attempts.diverged(error)
                continue
            if result.is_complete:
                rollbacks, workers = len(attempts.skipped), job.config.train.workers
                return replace(result, restarts=attempts.restarts, rollbacks=rollbacks, workers=workers)
            if shutdown.is_received:
                raise StoppedError(
                    f"training received SIGTERM and stopped after step {latest_checkpoint(job.run)}, whose checkpoint"
                    " is written; start the same run again to resume"
                )
            attempts.lost(WorkerLostError("a worker received SIGTERM"))


def _budget_seconds(job: TrainingJob, progress: Callable[[str], None]) -> float | None:
    """Return the seconds of training, including earlier attempts, after which the budget ends the training.

    Return None without a budget. Even if the budget is used up, an attempt that resumes takes one more step, so that
    the run ends with a model.
    """
    left = seconds_for_training(job.run, job.config)
    if left is None:
        return None
    trained = trained_seconds(job.run)
    if left <= 0 and not trained:
        raise InputError(
            f"the budget leaves nothing for training ({describe_budget(job.config)}): the earlier pipeline steps and"
            " the start of the cluster have used it up; raise the budget, or shorten the text"
        )
    progress(f"the budget pays for {max(left, 0.0):.0f} s of training from now on")
    return trained + max(left, LEAST_SECONDS)


def _attempt(job: TrainingJob, engine: Engine, shutdown: ShutdownSignal) -> TrainingResult:
    """Train from the latest checkpoint on: by all-reduce, in rounds, or in rounds after an all-reduce warm-up."""
    config = job.config.train
    worker, workers, warmup_steps = partial(train_worker, job=job), config.workers, config.allreduce_steps
    if config.strategy == "allreduce":
        return engine.run_worker_group(worker, workers, f"train with {counted(workers, 'worker')}")
    if (latest_checkpoint(job.run) or 0) < warmup_steps:
        description = f"train {counted(warmup_steps, 'step')} with {counted(workers, 'worker')}"
        result = engine.run_worker_group(partial(worker, until=warmup_steps), workers, description)
        if not result.is_complete:
            return result
    return Rounds(job, engine).run(shutdown)


class Attempts:
    """Counts the restarts and rollbacks of a run, and decides whether another attempt is made.

    The counts are stored in the lake. `skipped` has the numbers of the batches that the next attempts leave out. In a
    replay, these are at first the batches that the record lists.
    """

    def __init__(
        self, run: Run, config: TrainConfig, progress: Callable[[str], None], skipped: tuple[int, ...] = ()
    ) -> None:
        self._run, self._config, self._progress = run, config, progress
        try:
            counts = store.read_json(run.attempts)
        except FileNotFoundError:
            counts = {"restarts": 0, "skipped_batches": skipped}
        with reading(run.attempts, "delete it and run the step again"):
            self.restarts = int(counts["restarts"])
            self.skipped = tuple(int(batch) for batch in counts["skipped_batches"])
        self._restarts_before = self.restarts
        self._memory_losses = 0

    def lost(self, error: WorkerLostError) -> None:
        """Count a lost worker. Raise an error if this driver has restarted training `train.max_restarts` times."""
        log.warning("%s", error)
        size = self._same_size_again(error)
        restarts, limit = self.restarts - self._restarts_before, self._config.max_restarts
        if restarts == limit:
            raise WorkerLostError(
                f"workers were lost {restarts + 1} times, more often than train.max_restarts ({limit}) allows; the last"
                f" time: {str(error).splitlines()[0]}"
            ) from None
        self.restarts += 1
        self._save()
        step = latest_checkpoint(self._run) or 0
        self._progress(f"a worker was lost; resuming from step {step}{size} (restart {restarts + 1} of {limit})")

    def _same_size_again(self, error: WorkerLostError) -> str:
        """Return a text which says that the next attempt has containers of the same size, although one was too small.

        Return "" unless `error` says that a container was killed because it used too much memory. Raise a
        MemoryLimitError if this is the second such error.
        """
        if not isinstance(error, MemoryLimitError):
            return ""
        self._memory_losses += 1
        if self._memory_losses > _MOST_MEMORY_LOSSES:
            raise MemoryLimitError(
                f"containers of the same size used too much memory and were killed in {self._memory_losses} attempts,"
                f" so training is not restarted; the last time: {str(error).splitlines()[0]}"
            ) from None
        return ", once more in containers of the same size, although one used too much memory and was killed"

    def diverged(self, error: DivergedError) -> None:
        """Leave out the batch at which training diverged. Raise `error` if the settings do not allow a rollback."""
        number, limit = len(self.skipped) + 1, self._config.max_rollbacks
        if self._config.on_divergence == "stop" or number > limit:
            raise error
        log.warning("%s", error)
        self.skipped = (*self.skipped, batch_of_step(error.step - 1, self.skipped))
        self._save()
        step = latest_checkpoint(self._run) or 0
        self._progress(
            f"training diverged at step {error.step}; back to step {step}, without that batch"
            f" (rollback {number} of {limit})"
        )

    def _save(self) -> None:
        store.write_json(self._run.attempts, {"restarts": self.restarts, "skipped_batches": self.skipped})
