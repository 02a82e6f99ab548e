"""Early stopping: a run ends when its validation loss has not improved for a while."""

from __future__ import annotations

from jobs.config import TrainConfig
from jobs.training.checkpoint import TrainingState


def has_stopped_improving(state: TrainingState, config: TrainConfig) -> bool:
    """Whether `train.early_stopping_evals` validations in a row were no better than the best one.

    They are counted by steps, so that a run which is resumed decides alike.
    """
    if config.early_stopping_evals is None or state.best_step is None:
        return False
    since = state.steps // config.eval_every - state.best_step // config.eval_every
    return since >= config.early_stopping_evals
