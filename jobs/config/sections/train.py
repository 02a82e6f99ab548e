"""The training of the model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.config.sections.base import Section

EMBED = "embed"
"""The value of `train.embeddings` that starts the model from the vectors of the embed step."""


class TrainConfig(Section):
    """The train step: how the model is trained, validated and saved."""

    strategy: Literal["allreduce", "average", "diloco"] = "allreduce"
    """How workers combine their results. `allreduce`: they add their gradients at every step, which needs a fast
    network. `average` and `diloco`: each worker trains several steps alone in each round. Then `average` averages the
    weights, and `diloco` takes a step of an outer optimizer (arXiv:2311.08105). Both survive the loss of machines."""
    sync_every: int = Field(30, ge=0)
    """Steps that each worker trains alone in a round of `average` and `diloco`; 0 makes each epoch one round. Higher
    values need less communication."""
    outer_learning_rate: float = Field(1.0, gt=0)
    """Learning rate of the outer optimizer of `diloco`: SGD with Nesterov momentum on the mean change of a round."""
    outer_momentum: float = Field(0.3, ge=0, lt=1)
    """Momentum of the outer optimizer of `diloco`."""
    delta_dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Number format in which workers of `average` and `diloco` send their changes of the weights. `int8` sends a
    quarter of the bytes of `float32`, with a scale for each row."""
    allreduce_steps: int = Field(0, ge=0)
    """Number of steps to train by all-reduce before the first round of `average` or `diloco`."""
    state_every: int = Field(10, ge=1)
    """Number of rounds between two copies of the workers' optimizer states in the lake. In between, the states are only
    on the workers' disks, and a lost worker loses its own."""
    init: str | None = None
    """Model whose weights training starts from, instead of random ones: a model folder or zip file, the id of a run, or
    `champion`. It must have the same tokenizer and the same shape."""
    early_stopping_evals: int | None = Field(None, ge=1)
    """End training after this many validations in a row without a lower validation loss. Without a value, training runs
    to its end."""
    workers: int = Field(2, ge=1, le=1024)
    """Number of tasks that train together. At most spark.executors x spark.executor_cores."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training windows; a fraction, such as 0.5, is allowed."""
    max_tokens: int | None = Field(None, ge=1)
    """End training after this many tokens, unless train.epochs is reached first."""
    max_seconds: float | None = Field(None, gt=0)
    """End training after this many seconds, unless train.epochs is reached first. It bounds the cost of a run."""
    batch_size: int = Field(32, ge=1)
    """Number of windows in the global batch, over all workers together. Larger batches make training faster and its
    gradients less noisy, but an epoch then has fewer steps."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Largest number of windows that a worker computes at once. The gradients of several such parts are summed
    (gradient accumulation), so the result is the same. Set it if memory is short."""
    optimizer: Literal["adamw", "adam", "sgd", "muon"] = "muon"
    """`muon`: Muon for the matrices between the embeddings and the output, and AdamW for the rest; usually learns
    fastest. `adamw`: AdamW. `adam` and `sgd`: without weight decay."""
    learning_rate: float = Field(5e-3, gt=0)
    """Highest learning rate. With muon, 0.01 suits models of a million parameters, and larger models need less."""
    schedule: Literal["constant", "exponential", "linear", "cosine", "wsd"] = "linear"
    """How the learning rate falls after the warm-up. `constant`: not at all. `exponential`: by a factor in each epoch.
    `linear`: linearly. `cosine`: as half a cosine wave. `wsd` (warm-up, stable, decay): linearly, in the last part
    of the run only."""
    min_learning_rate_ratio: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end of the linear, cosine and wsd schedules, relative to the highest one: 0.1 is a tenth."""
    decay_fraction: float = Field(0.3, gt=0, le=1)
    """Last part of the run in which the wsd schedule lowers the learning rate."""
    decay_per_epoch: float = Field(0.9, gt=0, le=1)
    """Factor by which the exponential schedule lowers the learning rate in an epoch, a little at each step."""
    warmup_steps: int = Field(50, ge=0)
    """Number of steps over which the learning rate rises linearly to its highest value; at most a tenth of all
    steps."""
    weight_decay: float = Field(0.1, ge=0)
    """Weight decay of matrices with adamw and muon. Vectors are not decayed."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of Adam's and AdamW's first moment, the mean of gradients."""
    beta2: float = Field(0.98, ge=0, lt=1)
    """Decay of Adam's and AdamW's second moment, the mean of squared gradients."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Momentum of sgd and muon."""
    nesterov: bool = True
    """Use Nesterov momentum in sgd and muon."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradients. Larger gradients are scaled down to it, so that one bad batch does little harm."""
    embeddings: str | None = None
    """Vectors of tokens that the model starts from: the folder of an embeddings dataset, or a .csv, .parquet or
    word2vec .txt file. `embed` learns them from the run's own text, in the step embed before training. Without a value,
    they start at random."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of matrix products. `auto` takes bfloat16 if the hardware supports it, else float32."""
    compile: bool = False
    """Compile the model with torch.compile: a slower start, then faster steps. On a CPU, the workers need a C++
    compiler."""
    seed: int = Field(1234, ge=0)
    """Seed of the initial weights and of the order of the windows."""
    eval_every: int = Field(100, ge=1)
    """Number of steps between two validations. The last step is always followed by one."""
    eval_windows: int = Field(512, ge=1)
    """Largest number of windows that a validation uses, evenly spaced over the validation text. With more windows, the
    loss is more exact and takes longer to compute."""
    checkpoint_every: int = Field(200, ge=1)
    """Number of steps between two checkpoints. The last step is always followed by one."""
    checkpoint_seconds: float = Field(300.0, gt=0)
    """Longest time between two checkpoints in seconds: a lost worker costs about this much work at most."""
    keep_checkpoints: int = Field(2, ge=1)
    """Number of latest checkpoints to keep; older ones are deleted."""
    keep_best: bool = True
    """Write a checkpoint at each new lowest validation loss, and make the model from the best checkpoint, not from the
    last."""
    max_restarts: int = Field(3, ge=0)
    """Number of times that training resumes from the last checkpoint after a worker was lost."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """What to do if the loss is not finite, or rises by more than max_loss_rise. `stop` ends the run; `rollback`
    returns to the last checkpoint and leaves that batch out."""
    max_rollbacks: int = Field(3, ge=0)
    """Largest number of batches that `rollback` leaves out in a run. At the next divergence, the run ends."""
    max_loss_rise: float | None = Field(None, gt=0)
    """Rise of the loss, in nats, that counts as a divergence: from the mean of about the last 20 batches to the loss of
    a batch. Without a value, only a loss that is not finite counts."""
    gang_timeout_seconds: float = Field(300.0, gt=0)
    """Longest time in seconds that a worker waits for the other workers of its group. A value below
    step_timeout_seconds + 60 is raised to that."""
    step_timeout_seconds: float = Field(300.0, gt=0)
    """Longest time in seconds that a worker may take for a step, a validation or a checkpoint. After it, the worker is
    killed and training resumes."""

    @model_validator(mode="after")
    def _rounds_do_not_roll_back(self) -> Self:
        if self.on_divergence == "rollback" and self.strategy != "allreduce":
            raise ValueError("train.on_divergence=rollback needs train.strategy=allreduce; rounds support only stop")
        return self

    @model_validator(mode="after")
    def _a_window_for_each_worker(self) -> Self:
        if self.batch_size < self.workers:
            raise ValueError(
                f"train.batch_size ({self.batch_size}) must be at least train.workers ({self.workers}):"
                " each worker takes a part of the global batch"
            )
        return self
