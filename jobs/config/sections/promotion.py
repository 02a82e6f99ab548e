"""Settings of promotion: how models are compared, and when a model takes the champion's place."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jobs.config.sections import Section


class PromotionConfig(Section):
    """Whether a run's model may become the champion of its pipeline, and under which conditions."""

    enabled: bool = True
    """Compare the model with the champion after training, and promote the model if it is better. Runs that do not
    promote are experiments: they do not wait for other runs of their pipeline."""
    error_rate: float = Field(0.05, gt=0, lt=0.5)
    """Largest probability that a model is promoted although it is not better than the champion. Lower values need more
    documents, or a larger gain."""
    least_gain: float = Field(0.002, ge=0, lt=1)
    """Smallest gain for which a model is promoted: how much lower its loss is, as a share of the champion's loss. 0.002
    is 0.2%."""
    documents: int = Field(1000, ge=20, le=100_000)
    """Largest number of documents in the evaluation set. Until it is reached, new validation documents are added."""
    baseline: Literal["unigram", "bigram"] = "bigram"
    """Baseline that the validation loss must be below. `unigram`: a model that knows only the frequencies of tokens.
    `bigram`: a model that also knows the frequencies of pairs of tokens. A few minutes of training are not enough to
    beat it. A model that predicts embeddings must beat the mean vector instead."""
    max_repetition: float = Field(0.5, gt=0, le=1)
    """Largest share of the generated 4-grams of tokens that may repeat an earlier 4-gram of the same text."""
    max_unknown: float = Field(0.2, ge=0, le=1)
    """Largest share of the generated tokens that may be the unknown token."""
    canaries: tuple[str, ...] = ()
    """Prompts that a model must continue with text to be promoted. If it continues one of them with nothing, or with
    repetition, the champion stays."""
