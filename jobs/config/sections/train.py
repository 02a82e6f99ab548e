"""How the model is trained."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.config.sections.base import Section

EMBED = "embed"
"""What `train.embeddings` says for the vectors that the run's step of this name learns."""


class TrainConfig(Section):
    """How the model is trained."""

    strategy: Literal["allreduce", "average", "diloco"] = "allreduce"
    """How workers agree: `allreduce` sums gradients at every step, in a barrier stage; `average` and `diloco` train
    rounds of local steps, ordinary stages, and average the weights or take an outer step (arXiv:2311.08105)."""
    sync_every: int = Field(30, ge=0)
    """Local steps of a round of `average` and `diloco`; 0 is a round for each epoch."""
    outer_learning_rate: float = Field(1.0, gt=0)
    """Learning rate of `diloco`'s outer optimizer, SGD with Nesterov momentum on the mean change of a round."""
    outer_momentum: float = Field(0.3, ge=0, lt=1)
    """Momentum of `diloco`'s outer optimizer."""
    delta_dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """What a worker's change of the weights travels as; `int8` has a scale for each row."""
    allreduce_steps: int = Field(0, ge=0)
    """Train so many first steps by all-reduce before the rounds of `average` and `diloco`."""
    state_every: int = Field(10, ge=1)
    """Copy the workers' optimizer state to the lake every so many rounds; between, it is on their local disks."""
    init: str | None = None
    """Model whose weights training starts from: a folder or zip file, a run's id, or `champion`; it must have the same
    tokenizer and the same shape."""
    early_stopping_evals: int | None = Field(None, ge=1)
    """End when so many validations in a row were no better than the best before them."""
    workers: int = Field(2, ge=1, le=1024)
    """Tasks that train together."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training windows; may be a fraction."""
    max_tokens: int | None = Field(None, ge=1)
    """Stop after so many tokens, if that is sooner."""
    max_seconds: float | None = Field(None, gt=0)
    """Stop after so many seconds of training, if that is sooner."""
    batch_size: int = Field(32, ge=1)
    """Windows in a global batch, whatever the number of workers."""
    micro_batch_size: int | None = Field(None, ge=1)
    """If given, a worker takes its part of the batch in pieces of so many windows and adds up their gradients: the
    result is the same, the memory less."""
    optimizer: Literal["adamw", "adam", "sgd", "muon"] = "muon"
    """`adam` and `sgd` do not decay weights; `muon` is Muon for the matrices between embeddings and output layer,
    and AdamW for the rest."""
    learning_rate: float = Field(5e-3, gt=0)
    """Highest learning rate; with muon 0.01 suits models of a million parameters, less suits larger ones."""
    schedule: Literal["constant", "exponential", "linear", "cosine", "wsd"] = "linear"
    """How the learning rate falls after the warm-up: not at all; by a factor in each epoch; linearly; as a cosine; or
    linearly at the end only (warm-up, stable, decay)."""
    min_learning_rate_ratio: float = Field(0.0, ge=0, le=1)
    """The linear, cosine and wsd schedules end at so much of the highest learning rate."""
    decay_fraction: float = Field(0.3, gt=0, le=1)
    """The learning rate of the wsd schedule falls in this last share of the run."""
    decay_per_epoch: float = Field(0.9, gt=0, le=1)
    """The learning rate of the exponential schedule falls by this factor in an epoch, a little at each step."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up; at most a tenth of all steps is used."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay of matrices by adamw and muon; vectors are not decayed."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of Adam's first moment."""
    beta2: float = Field(0.98, ge=0, lt=1)
    """Decay of Adam's second moment."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Momentum of sgd and muon."""
    nesterov: bool = True
    """Whether the momentum of sgd and muon is Nesterov's."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    embeddings: str | None = None
    """Embeddings that the model starts from: a dataset's folder, or a .csv, .parquet or word2vec .txt file; `embed` for
    vectors of the run's own tokens, which the step `embed` then learns before training."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of matrix products; `auto` takes bfloat16 where the hardware has it."""
    compile: bool = False
    """Compile the model (torch.compile); on a CPU this needs a C++ compiler on the workers."""
    seed: int = Field(1234, ge=0)
    """Seed of initial weights and of the order of samples."""
    eval_every: int = Field(100, ge=1)
    """Validate every so many steps, and at the end."""
    eval_windows: int = Field(512, ge=1)
    """Validate on at most so many windows, evenly spaced."""
    checkpoint_every: int = Field(200, ge=1)
    """Write a checkpoint every so many steps, and at the end."""
    checkpoint_seconds: float = Field(300.0, gt=0)
    """Write a checkpoint also when the last one is so many seconds old."""
    keep_checkpoints: int = Field(2, ge=1)
    """Keep so many of the latest checkpoints."""
    keep_best: bool = True
    """Write a checkpoint also when the validation loss is the lowest so far, keep it, and make the model of it in the
    end, not of the last step."""
    max_restarts: int = Field(3, ge=0)
    """Resume from the last checkpoint after a lost worker at most so many times."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """What a loss that is not finite does: stop the run, or go back to the last checkpoint and leave that batch out."""
    max_rollbacks: int = Field(3, ge=0)
    """With `rollback`: leave out at most so many batches in a run, then stop."""
    max_loss_rise: float | None = Field(None, gt=0)
    """If given, a batch whose loss is so much above the mean of about the last 20 (nats) counts as divergence too."""
    gang_timeout_seconds: float = Field(300.0, gt=0)
    """Longest wait of a worker for the others; at least somewhat more than `step_timeout_seconds` is taken."""
    step_timeout_seconds: float = Field(300.0, gt=0)
    """A worker that takes longer for a step, a validation or a checkpoint hangs: it is killed, and training resumes."""

    @model_validator(mode="after")
    def _rounds_do_not_roll_back(self) -> Self:
        if self.on_divergence == "rollback" and self.strategy != "allreduce":
            raise ValueError("train.on_divergence=rollback needs train.strategy=allreduce; rounds can only stop")
        return self

    @model_validator(mode="after")
    def _a_window_for_each_worker(self) -> Self:
        if self.batch_size < self.workers:
            raise ValueError(
                f"train.batch_size ({self.batch_size}) must be at least train.workers ({self.workers}):"
                " each worker takes a part of the global batch"
            )
        return self
