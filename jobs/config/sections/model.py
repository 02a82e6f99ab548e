"""Settings of the model: its shape, its training, and the text that it generates."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from jobs.config.sections import Section

EPOCH = "epoch"
Steps = Annotated[int, BeforeValidator(lambda value: 0 if value == EPOCH else value), Field(ge=0)]
"""A number of steps. `epoch`, which is stored as 0, stands for the steps of an epoch."""
CHAMPION_OR_SCRATCH = "champion-or-scratch"
"""The value of `train.init` that starts from the promoted model, or from random weights if there is none."""

EMBED = "embed"
"""The value of `train.embeddings` that starts the model from the vectors of the embed step."""


class ModelConfig(Section):
    """The kind of the model and its shape."""

    kind: Literal["transformer", "context_mlp", "context_attention", "embedding_regression"] = "transformer"
    """`transformer`: a decoder like Llama, the choice for most texts. The others are small context models, which
    predict only the token after a window. `context_mlp`: dense layers over the embeddings of the window.
    `context_attention`: one self-attention layer, then dense layers. `embedding_regression`: dense layers that predict
    the next token's fixed embedding."""
    num_layers: int = Field(4, ge=1, le=200)
    """Number of layers of the transformer. More layers learn more and cost more time."""
    embedding_size: int = Field(256, ge=2, le=16_384)
    """Dimension of the embeddings, and width of the transformer's layers. It must be a multiple of 2 x num_heads."""
    hidden_size: int = Field(688, ge=1, le=65_536)
    """Width of the transformer's feed-forward blocks, usually 2.7 times embedding_size."""
    hidden_sizes: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field((128, 128), min_length=1)
    """Widths of a context model's dense layers, in their order."""
    num_heads: int = Field(4, ge=1, le=256)
    """Number of attention heads. embedding_size / num_heads is the width of a head, usually 64."""
    num_kv_heads: int = Field(4, ge=1, le=256)
    """Number of key and value heads of the transformer; it must divide num_heads. Fewer save memory while
    generating."""
    positions: Literal["rotary", "sinusoidal", "learned", "none"] = "rotary"
    """How context_attention represents the position of a token. The transformer's positions are always `rotary`, and
    the other kinds need none."""
    rope_theta: float = Field(10_000.0, gt=1)
    """Base of the wavelengths of rotary positions. Higher values suit windows of many thousand tokens."""
    norm_epsilon: float = Field(1e-5, gt=0)
    """Small number that RMSNorm adds to the mean square, so that it never divides by 0."""

    @model_validator(mode="after")
    def _shape_fits_kind(self) -> Self:
        rotary = self.kind == "transformer" or (self.kind == "context_attention" and self.positions == "rotary")
        if rotary and self.embedding_size % (2 * self.num_heads):
            raise ValueError(
                f"model.embedding_size ({self.embedding_size}) must be a multiple of twice model.num_heads"
                f" ({self.num_heads}): rotary positions rotate pairs of values"
            )
        if self.kind == "context_attention" and self.embedding_size % self.num_heads:
            raise ValueError(
                f"model.num_heads ({self.num_heads}) must divide model.embedding_size ({self.embedding_size})"
            )
        if self.kind == "transformer" and self.num_heads % self.num_kv_heads:
            raise ValueError(f"model.num_kv_heads ({self.num_kv_heads}) must divide model.num_heads ({self.num_heads})")
        if self.kind == "transformer" and self.positions != "rotary":
            raise ValueError(f"model.positions ({self.positions}) must be rotary for model.kind=transformer")
        return self


class TrainConfig(Section):
    """The train step: how the model is trained, validated and saved."""

    strategy: Literal["allreduce", "average", "diloco"] = "allreduce"
    """How workers combine their results. `allreduce`: they add their gradients at every step, which needs a fast
    network. `average` and `diloco`: each worker trains several steps alone in each round. Then `average` averages the
    weights, and `diloco` takes a step of an outer optimizer (arXiv:2311.08105). In both, training goes on if
    machines are lost."""
    sync_every: Steps = 30
    """Steps that each worker trains alone in a round; `epoch` or 0 makes each epoch one round. Higher values need less
    communication."""
    outer_learning_rate: float = Field(1.0, gt=0)
    """Learning rate of the outer optimizer of `diloco`: SGD with Nesterov momentum on the mean weight delta of a
    round."""
    outer_momentum: float = Field(0.3, ge=0, lt=1)
    """Momentum of the outer optimizer of `diloco`."""
    delta_dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Number format in which workers send their weight deltas after a round. `int8` sends a quarter of the bytes of
    `float32`, with a scale for each row."""
    allreduce_steps: int = Field(0, ge=0)
    """Number of steps to train by all-reduce before the first round."""
    state_every: int = Field(10, ge=1)
    """Number of rounds between two copies of the workers' optimizer states in the lake. In between, the states are only
    on the workers' disks: a worker that replaces a lost one may have to continue with an older state."""
    init: str | None = None
    """Model whose weights training starts from, instead of random ones: a model folder or zip file, the id of a run,
    `champion`, or `champion:<pipeline>`. It must have the same tokenizer and the same shape. `champion-or-scratch` and
    `champion-or-scratch:<pipeline>` start from random weights if there is no champion yet."""
    early_stopping_evals: int | None = Field(None, ge=1)
    """End training after this many validations in a row without a new lowest validation loss. Without a value, training
    runs to its end."""
    workers: int = Field(2, ge=1, le=1024)
    """Number of workers, which are tasks that train together. It must be at most spark.executors x
    spark.executor_cores. On a cluster, one worker on each node uses all processors of the node."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training windows; a fraction, such as 0.5, is allowed."""
    epochs_of_new_text: float | None = Field(None, gt=0)
    """Length of training as a number of passes over the new text: the files that were not in the corpus of the model in
    `train.init`. Training uses as many tokens as these passes would, but draws them evenly from the whole corpus. It
    never uses more tokens than train.epochs allows. So the cost of a nightly run depends on the amount of new text, not
    on the whole corpus. If there is no new text, or the files of that model are not known, only train.epochs counts."""
    max_tokens: int | None = Field(None, ge=1)
    """End training after this many tokens, unless train.epochs is reached first."""
    max_seconds: float | None = Field(None, gt=0)
    """End training after this many seconds, unless train.epochs is reached first. This limits the cost of a run."""
    batch_size: int = Field(32, ge=1)
    """Number of windows in the global batch, over all workers together. Larger batches make an epoch faster and the
    gradients less noisy, but an epoch then has fewer steps."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Largest number of windows that a worker computes at once. If a worker's share of the batch is larger, it is
    computed in several parts, and their gradients are summed (gradient accumulation). The result is the same. Set a
    value if memory is short. A large GPU needs many windows at once to be busy."""
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
    """Share of the run, at its end, in which the wsd schedule lowers the learning rate: 0.3 is the last 30%."""
    decay_per_epoch: float = Field(0.9, gt=0, le=1)
    """Factor by which the exponential schedule lowers the learning rate in an epoch, a little at each step."""
    warmup_steps: int = Field(50, ge=0)
    """Number of steps over which the learning rate rises linearly to its highest value. The warm-up takes at most a
    tenth of all steps, and a tenth of the time that train.max_seconds or a budget allows."""
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
    word2vec .txt file. `embed` learns the vectors from the run's own text, in the step embed before training. Without a
    value, the vectors start at random."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of matrix products. `auto` takes bfloat16 if the hardware supports it, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the workers train. `auto` takes a GPU if there is one; a cluster whose instances have GPUs takes `cuda`.
    `cuda` fails at once if a worker finds no GPU, so that you do not pay for GPUs while training on processors."""
    compile: bool = False
    """Compile the model with torch.compile. The start then takes half a minute longer, and the steps of a transformer
    take less time: on a large GPU, half the time. The workers need a C++ compiler, or on a GPU a C compiler and
    Python's headers."""
    seed: int = Field(1234, ge=0)
    """Seed of the initial weights and of the order of the windows."""
    eval_every: Steps = 100
    """Number of steps between two validations, each of which is a row of metrics.csv. `epoch` or 0 validates at the end
    of each epoch. The last step is always followed by a validation."""
    eval_windows: int = Field(512, ge=1)
    """Largest number of windows that a validation uses, evenly spaced over the validation text. With more windows, the
    loss is more exact and takes longer to compute."""
    checkpoint_every: int = Field(200, ge=1)
    """Number of steps between two checkpoints. The last step is always followed by a checkpoint."""
    checkpoint_seconds: float = Field(300.0, gt=0)
    """Longest time between two checkpoints in seconds. If a worker is lost, at most about this much work is lost."""
    keep_checkpoints: int = Field(2, ge=1)
    """Number of latest checkpoints to keep; older ones are deleted."""
    keep_best: bool = True
    """Write a checkpoint at each new lowest validation loss, and make the model from the best checkpoint, not from the
    last."""
    max_restarts: int = Field(3, ge=0)
    """Number of times that training resumes from the last checkpoint after a worker was lost."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """What to do if training diverges: the loss or the gradient is not finite, or the loss rises by more than
    max_loss_rise. `stop` ends the run. `rollback` returns to the last checkpoint and then skips the batch at which
    training diverged."""
    max_rollbacks: int = Field(3, ge=0)
    """Largest number of batches that `rollback` leaves out in a run. At the next divergence, the run ends."""
    max_loss_rise: float | None = Field(None, gt=0)
    """Rise of the loss, in nats, that counts as a divergence: from the mean of about the last 20 batches to the loss of
    a batch. Without a value, only a loss or gradient that is not finite counts."""
    gang_timeout_seconds: float = Field(300.0, gt=0)
    """Longest time in seconds that a worker waits for the other workers of its group. A value below
    step_timeout_seconds + 60 is raised to this sum."""
    step_timeout_seconds: float = Field(300.0, gt=0)
    """Longest time in seconds that a worker may take for a step, a validation or a checkpoint. After it, the worker is
    killed and training resumes."""

    def with_epochs_for(self, new_share: float | None) -> TrainConfig:
        """Return these settings with `epochs` lowered to what `epochs_of_new_text` allows.

        Args:
            new_share: The share of the text that was not in the corpus of the model to start from. None if not known.
        """
        if self.epochs_of_new_text is None or not new_share:
            return self
        return self.model_copy(update={"epochs": min(self.epochs, self.epochs_of_new_text * new_share)})

    def num_steps(self, num_windows: int, window_size: int) -> int:
        """Return the number of optimizer steps over `num_windows` windows of `window_size` tokens."""
        steps = math.ceil(round(self.epochs * num_windows / self.batch_size, 6))
        if self.max_tokens is not None:
            steps = min(steps, math.ceil(self.max_tokens / (self.batch_size * window_size)))
        return max(1, steps)

    @model_validator(mode="after")
    def _strategy_and_batch_fit(self) -> Self:
        if self.on_divergence == "rollback" and self.strategy != "allreduce":
            raise ValueError(
                f"train.on_divergence=rollback needs train.strategy=allreduce, not {self.strategy}; choose"
                " this strategy, or train.on_divergence=stop"
            )
        if self.batch_size < self.workers:
            raise ValueError(
                f"train.batch_size ({self.batch_size}) must be at least train.workers ({self.workers}):"
                " each worker takes a part of the global batch"
            )
        return self


class GenerateConfig(Section):
    """The generate step: how the model continues prompts."""

    prompts: tuple[str, ...] = Field(("The man starts with",), min_length=1)
    """Texts to continue. An empty text begins a new document."""
    prompts_file: str | None = None
    """File with the prompts, which are used instead of generate.prompts: a text file, or a .jsonl file whose lines have
    a field `prompt`. A path, file:///... or s3://..."""
    prompt_unit: Literal["line", "file"] = "line"
    """What one prompt is in a text file of prompts: each `line`, or the whole `file`."""
    num_samples: int = Field(3, ge=1, le=10_000)
    """Number of continuations of each prompt."""
    max_new_words: int = Field(20, ge=1)
    """Longest continuation in words, unless max_new_tokens has a value."""
    min_new_words: int | None = Field(None, ge=1)
    """Shortest continuation in words: until then, the end-of-text token is not drawn. Only generate.max_new_tokens and
    generate.stop can end a continuation earlier."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Longest continuation in tokens. With a value, max_new_words has no effect."""
    temperature: float = Field(0.8, ge=0)
    """Randomness of the text: the logits are divided by this number. 0 always takes the likeliest token, as do values
    below 1e-6; 1 keeps the model's probabilities; higher values are more random."""
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
    """Texts that end a continuation. The continuation ends before the first of these texts."""
    seed: int = Field(0, ge=0)
    """Seed of the random draws. With the same seed, a run generates the same text, whatever the number of tasks."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Number format of matrix products. `float32` gives the same text on machines with the same floating-point
    rounding. `bfloat16` is faster for many prompts. `int8` stores the matrices of a transformer in a quarter of the
    memory, and is fastest for single prompts."""

    @model_validator(mode="after")
    def _ends_fit(self) -> Self:
        if self.max_new_tokens is None and (self.min_new_words or 0) > self.max_new_words:
            raise ValueError(
                f"generate.min_new_words ({self.min_new_words}) must be at most generate.max_new_words"
                f" ({self.max_new_words})"
            )
        if "" in self.stop:
            raise ValueError("generate.stop holds an empty text, which would end every continuation at once; remove it")
        return self
