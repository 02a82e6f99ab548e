"""The use of a model that exists, in a run that trains none."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.config.sections import Section


class UseConfig(Section):
    """The model that a run uses instead of training one, and for what."""

    model: str | None = Field(None, min_length=1)
    """Model to use instead of training one: a model folder or zip file, the id of a run, `champion`, or
    `champion:<pipeline>`. The run then has the step of use.task alone. Without a value, the run trains a model."""
    task: Literal["generate", "evaluate"] = "generate"
    """What the model is used for. `generate`: it continues the prompts of generate.*, and the run needs no text.
    `evaluate`: its loss on each document of the text is computed, in nats and bits per byte."""
