"""Promotion: on what models are compared, and when one takes the champion's place."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.config.sections import Section


class PromotionConfig(Section):
    """Whether a run's model may become the champion of its pipeline, and what it must show for that."""

    enabled: bool = True
    """Compare the model with the champion after training, and promote it if it is better. Runs that do not promote are
    experiments: they wait for no other run of their pipeline."""
    error_rate: float = Field(0.05, gt=0, lt=0.5)
    """Largest probability that a model which is no better is promoted. Lower values need more documents, or a larger
    gain."""
    least_gain: float = Field(0.002, ge=0, lt=1)
    """Smallest gain that is worth a change, as a part of the champion's loss: 0.002 is 0.2%."""
    documents: int = Field(1000, ge=20, le=100_000)
    """Largest number of documents in the evaluation set. It grows with the validation text up to this number."""
    baseline: Literal["unigram", "bigram"] = "bigram"
    """What the validation loss must be below. `unigram`: the frequencies of tokens. `bigram`: those of pairs of tokens,
    too, which takes more than minutes of training. Models that predict embeddings must beat the mean embedding."""
    max_repetition: float = Field(0.5, gt=0, le=1)
    """Largest part of the generated 4-grams of tokens that may repeat an earlier one of the same text."""
    max_unknown: float = Field(0.2, ge=0, le=1)
    """Largest part of the generated tokens that may be the unknown token."""
    canaries: tuple[str, ...] = ()
    """Prompts that the model must continue with text before it is promoted: an empty or repeated continuation keeps
    the champion."""
