"""What text the model makes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.config.sections.base import Section


class GenerateConfig(Section):
    """What text is made with the trained model."""

    prompts: tuple[str, ...] = Field(("The man starts with",), min_length=1)
    """Texts to continue."""
    prompts_file: str | None = None
    """If given, the prompts are read from there instead: a text file with one on each line, or a .jsonl file whose
    lines have a `prompt`; a path, file:///... or s3://..."""
    num_samples: int = Field(3, ge=1, le=10_000)
    """Continuations of each prompt."""
    max_new_words: int = Field(20, ge=1)
    """Each continuation has at most so many words."""
    max_new_tokens: int | None = Field(None, ge=1)
    """If given, each continuation has at most so many tokens, however many words they make."""
    temperature: float = Field(0.8, ge=0)
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int | None = Field(50, ge=1)
    """Draw among the k likeliest tokens."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw among the likeliest tokens that together have at least this probability."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Draw among tokens of at least this share of the likeliest one's probability."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Tokens of the prompt and of the text so far are made less likely; 1 leaves them alone."""
    stop: tuple[str, ...] = ()
    """A continuation ends before the first of these texts."""
    seed: int = Field(0, ge=0)
    """Seed of the draws."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Arithmetic of matrix products. float32 gives the same text on every machine that rounds alike; bfloat16 is faster
    for batches; int8 stores a transformer's matrices in a quarter of the bytes, and is fastest for single prompts."""

    @model_validator(mode="after")
    def _stops_are_texts(self) -> Self:
        if "" in self.stop:
            raise ValueError("generate.stop holds an empty text, at which every continuation would end at once")
        return self
