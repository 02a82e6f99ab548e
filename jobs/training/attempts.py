"""How often training was lost or diverged: counted over all attempts of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable

from jobs.config import TrainConfig
from jobs.errors import DivergedError, WorkerLostError
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.training.checkpoint import latest_checkpoint
from jobs.training.order import batch_of_step

log = logging.getLogger(__name__)


class Attempts:
    """Decides whether training resumes, and without which batches: `skipped`.

    Both stand in the lake, so that they survive a driver that is killed.
    """

    def __init__(self, run: Run, config: TrainConfig, progress: Callable[[str], None]) -> None:
        self._run, self._progress = run, progress
        self._config = config
        try:
            known = store.read_json(run.attempts)
        except FileNotFoundError:
            known = {"restarts": 0, "skipped_batches": []}
        self.restarts: int = known["restarts"]
        self.skipped: tuple[int, ...] = tuple(known["skipped_batches"])
        self._before = self.restarts

    def lost(self, error: WorkerLostError) -> None:
        """Count a lost worker.

        Raises:
            WorkerLostError: if there were too many since this driver started.
        """
        log.warning("%s", error)
        now, limit = self.restarts - self._before, self._config.max_restarts
        if now == limit:
            raise WorkerLostError(
                f"workers were lost {now + 1} times, which is more than train.max_restarts ({now}) allows; the last"
                f" time: {str(error).splitlines()[0]}"
            ) from None
        self.restarts += 1
        self._remember()
        step = latest_checkpoint(self._run) or 0
        self._progress(f"a worker was lost; resuming from step {step} (restart {now + 1} of {limit})")

    def diverged(self, error: DivergedError) -> None:
        """Leave out the batch at which training diverged, if that is wanted and was not done too often.

        Raises:
            DivergedError: if not.
        """
        number, limit = len(self.skipped) + 1, self._config.max_rollbacks
        if self._config.on_divergence == "stop" or number > limit:
            raise error
        log.warning("%s", error)
        self.skipped = (*self.skipped, batch_of_step(error.step - 1, self.skipped))
        self._remember()
        step = latest_checkpoint(self._run) or 0
        self._progress(
            f"training diverged at step {error.step}; back to step {step}, without that batch ({number} of {limit})"
        )

    def _remember(self) -> None:
        store.write_json(self._run.attempts, {"restarts": self.restarts, "skipped_batches": self.skipped})
