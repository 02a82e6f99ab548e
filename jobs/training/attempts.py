"""How often training was lost: counted over all attempts of a run, limited within one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from jobs import lake
from jobs.config import TrainConfig
from jobs.errors import WorkerLostError
from jobs.paths import Run
from jobs.training.checkpoint import latest_checkpoint

log = logging.getLogger(__name__)


class Attempts:
    """Decides whether training resumes. The count stands in the lake, so that it survives a driver that is killed."""

    def __init__(self, run: Run, config: TrainConfig, progress: Callable[[str], None]) -> None:
        self._run, self._progress = run, progress
        self._max_restarts = config.max_restarts
        try:
            self.restarts: int = lake.read_json(run.attempts)["restarts"]
        except FileNotFoundError:
            self.restarts = 0
        self._before = self.restarts

    def lost(self, error: WorkerLostError) -> None:
        """Count a lost worker.

        Raises:
            WorkerLostError: if there were too many since this driver started.
        """
        log.warning("%s", error)
        now = self.restarts - self._before
        if now == self._max_restarts:
            raise WorkerLostError(
                f"workers were lost {now + 1} times, which is more than train.max_restarts ({now}) allows; the last"
                f" time: {str(error).splitlines()[0]}"
            ) from None
        self.restarts += 1
        lake.write_json(self._run.attempts, {"restarts": self.restarts})
        step = latest_checkpoint(self._run) or 0
        self._progress(f"a worker was lost; resuming from step {step} (restart {now + 1} of {self._max_restarts})")
