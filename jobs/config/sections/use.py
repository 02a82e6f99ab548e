"""Settings of a run that uses an existing model instead of training one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.config.sections import Section


class UseConfig(Section):
    """The model that a run uses instead of training one, and the task for which it is used."""

    model: str | None = Field(None, min_length=1)
    """Model to use instead of training one: a model folder or zip file, the id of a run, `champion`, or
    `champion:<pipeline>`. The run then has only the step of use.task. Without a value, the run trains a model."""
    task: Literal["generate", "evaluate"] = "generate"
    """What the model is used for. `generate`: the model continues the prompts of generate.*, and the run needs no
    corpus. `evaluate`: the model's loss on each document of the corpus is computed, in nats and bits per byte."""
