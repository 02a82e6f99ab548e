"""One optimizer step of a worker, used by the all-reduce loop and by the local steps of rounds."""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Callable

import torch

from jobs.config import TrainConfig
from jobs.errors import DivergedError
from jobs.metrics.columns import BatchRow
from jobs.training.job import TrainingData, TrainingJob
from jobs.training.learner import Learner
from jobs.training.memory import resident_bytes
from jobs.training.order import Ids, seed_step
from jobs.training.process_group import Group
from jobs.training.supervision.watchdog import Watchdog

log = logging.getLogger(__name__)

Exchange = Callable[[float], tuple[float, float]]
"""A function that sums the gradients over the workers of the group. It takes this worker's part of the batch's mean
loss. It returns the batch's mean loss, and the seconds of training so far."""


class Trainer:
    """Everything that a worker needs to take steps. It is built once for all steps."""

    def __init__(
        self,
        job: TrainingJob,
        data: TrainingData,
        learner: Learner,
        group: Group,
        watchdog: Watchdog,
    ) -> None:
        self.config, self.data, self.learner, self.group, self.watchdog = (
            job.config.train,
            data,
            learner,
            group,
            watchdog,
        )
        self.order = job.order(data.train)
        self.schedule = job.schedule(data.train)


def train_step(
    trainer: Trainer, step: int, exchange: Exchange, *, batch: int, mean_loss: float | None = None
) -> BatchRow:
    """Train on this worker's share of a global batch; return the metrics of the step.

    In a `LocalGroup`, each worker takes the step by itself, and its gradient and loss are means over its share. In any
    other group, gradient and loss are means over the global batch, and `exchange` sums the workers' parts.

    `step` counts from 0, and `batch` is the number of the global batch in the sample order. The loss is compared with
    `mean_loss`, the moving mean of earlier losses (`check_loss`).
    """
    config, data, learner, group = trainer.config, trainer.data, trainer.learner, trainer.group
    started, cpu_started = time.perf_counter(), time.process_time()
    trainer.watchdog.beat(f"step {step + 1}")
    seed_step(config.seed, step, group.rank)
    global_ids = trainer.order.take(batch * config.batch_size, (batch + 1) * config.batch_size)
    share = global_ids[group.share(config.batch_size)]
    averaged = share if group.is_local else global_ids
    windows = torch.from_numpy(data.train.read(share))
    part_of_loss = learner.backward(windows, len(averaged) * learner.model.targets_per_window)
    sync_started = time.perf_counter()
    loss, seconds = exchange(part_of_loss)
    sync_seconds = time.perf_counter() - sync_started
    norm = learner.update(trainer.schedule.learning_rate(step, seconds))
    check_loss(loss, norm, step + 1, averaged, config, mean_loss)
    elapsed = time.perf_counter() - started
    return {
        "loss": loss,
        "learning_rate": learner.learning_rate,
        "gradient_norm": norm,
        "gradient_norms": learner.gradient_norms,
        "seconds": seconds,
        "step_milliseconds": 1000 * elapsed,
        "sync_milliseconds": 1000 * sync_seconds,
        "sync_bytes": group.sum_bytes(learner.gradients.buffer),
        "tokens_per_second": len(averaged) * data.train.size / elapsed,
        "resident_bytes": resident_bytes(),
        "cpu_load": (time.process_time() - cpu_started) / elapsed,
        "gpu_bytes": learner.gpu_bytes,
        "samples": samples_checksum(global_ids),
    }


def check_loss(
    loss: float, norm: float, step: int, ids: Ids, config: TrainConfig, mean_loss: float | None = None
) -> None:
    """Raise a DivergedError if training diverged at `step`, which trained on the windows `ids`.

    Training has diverged if `loss` or the gradient's `norm` is not finite, or if the loss is more than
    `train.max_loss_rise` above `mean_loss`.
    """
    has_risen = mean_loss is not None and config.max_loss_rise is not None and loss > mean_loss + config.max_loss_rise
    if math.isfinite(loss) and math.isfinite(norm) and not has_risen:
        return
    log.error("training diverged at step %d, on the windows %s", step, ids.tolist())
    shown = ", ".join(map(str, ids[:8])) + (", ... (all in the log)" if len(ids) > 8 else "")
    raise DivergedError(
        f"training diverged at step {step}: loss {loss}, gradient norm {norm}; training windows {shown};"
        f" lower train.learning_rate ({config.learning_rate:g}) or look at these windows",
        step,
    )


def samples_checksum(ids: Ids) -> str:
    """Return a checksum of the ids of a batch's windows."""
    return f"{zlib.crc32(ids.tobytes()):08x}"
