"""The text that is generated with the trained model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.config.sections.base import Section


class GenerateConfig(Section):
    """The generate step: text that continues prompts."""

    prompts: tuple[str, ...] = Field(("The man starts with",), min_length=1)
    """Texts to continue. An empty text begins a new document."""
    prompts_file: str | None = None
    """File with the prompts, which then replaces generate.prompts: a text file with one prompt in each line, or a
    .jsonl file whose lines have a field `prompt`. A path, file:///... or s3://..."""
    num_samples: int = Field(3, ge=1, le=10_000)
    """Number of continuations of each prompt."""
    max_new_words: int = Field(20, ge=1)
    """Longest continuation in words, unless max_new_tokens has a value."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest continuation in tokens. With a value, max_new_words has no effect."""
    temperature: float = Field(0.8, ge=0)
    """Randomness of the text: the logits are divided by this number. 0 always takes the likeliest token; 1 keeps the
    model's probabilities; higher values are more random."""
    top_k: int | None = Field(50, ge=1)
    """Draw only among this many of the likeliest tokens. Without a value, among all."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw only among the likeliest tokens that together have at least this probability, for example 0.9. Without a
    value, among all."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Draw only among tokens whose probability is at least this fraction of the highest one, for example 0.05. Without
    a value, among all."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Penalty for tokens that already occur in the prompt or in the text. 1 changes nothing; 1.1 to 1.3 avoids
    loops."""
    stop: tuple[str, ...] = ()
    """Texts that end a continuation. It ends before the first of them."""
    seed: int = Field(0, ge=0)
    """Seed of the random draws. The same seed gives the same text."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Number format of matrix products. `float32` gives the same text on machines with the same floating-point
    rounding. `bfloat16` is faster for many prompts. `int8` stores the matrices of a transformer in a quarter of the
    memory, and is fastest for single prompts."""

    @model_validator(mode="after")
    def _stops_are_texts(self) -> Self:
        if "" in self.stop:
            raise ValueError("generate.stop holds an empty text, which would end every continuation at once; remove it")
        return self
