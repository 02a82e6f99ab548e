"""The statistics that steps leave in ``stats/<step>.json``, and the tables of Spark's work."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, TypedDict

from jobs.metrics.schema import Metric, Show, names
from jobs.metrics.training import HEADLINE, LOSS_UNIT, Quality


class StepStats(TypedDict, total=False):
    """Statistics that every step of the pipeline leaves in ``stats/<step>.json``."""

    reused: Annotated[bool, Metric("", "True if the step found its result finished by an earlier run.")]
    error: Annotated[str | None, Metric("", "Message of the error that ended the step.")]
    engine: Annotated[str, Metric("", "Engine that ran the step: inline or spark.")]
    started: Annotated[float, Metric("s", "Start of the step, in seconds since 1970.")]
    seconds: Annotated[float, Metric("s", "Duration of the step.")]
    driver_resident_bytes: Annotated[int, Metric("bytes", "Resident memory of the driver at the end of the step.")]
    driver_cpu_load: Annotated[float, Metric("cores", "CPU time of the driver per second.")]


class WindowsStats(StepStats, total=False):
    """Statistics of the windows step."""

    num_train_windows: Annotated[int, Metric("windows", "Windows to train on.", Show.SUMMARY)]
    num_valid_windows: Annotated[int, Metric("windows", "Windows to validate on.", Show.SUMMARY)]
    unigram_loss: Annotated[float, Metric("nats per token", "Loss of the unigram baseline on the validation text.")]
    bigram_loss: Annotated[float, Metric("nats per token", "Loss of the bigram baseline on the validation text.")]
    unigram_accuracy: Annotated[float, Metric("share", "Validation tokens that are the most frequent training token.")]


class TrainStats(StepStats, Quality, total=False):
    """Statistics of the train step; losses and accuracies are of the published checkpoint."""

    batch_loss: Annotated[float, Metric(LOSS_UNIT, "Mean loss of the last 50 batches.")]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Training speed, evaluations included.", Show.SUMMARY)]
    num_parameters: Annotated[int, Metric("parameters", "Trained and fixed parameters of the model.", HEADLINE)]
    num_steps: Annotated[int, Metric("steps", "Optimizer steps.", Show.CARD)]
    num_tokens: Annotated[int, Metric("tokens", "Tokens trained on, repetitions counted.", Show.CARD)]
    epochs: Annotated[float, Metric("epochs", "Passes over the training windows.", Show.CARD)]
    learning_rate: Annotated[float, Metric("", "Learning rate of the last step.", Show.CARD)]
    gradient_norm_mean: Annotated[float, Metric("", "Mean of the gradient's norms.", Show.CARD)]
    gradient_norm_max: Annotated[float, Metric("", "Largest norm of the gradient.", Show.CARD)]
    seconds_per_step: Annotated[float, Metric("s", "Training time per optimizer step.")]
    seconds_per_epoch: Annotated[float, Metric("s", "Training time per epoch.")]
    training_seconds: Annotated[float, Metric("s", "Training time, without start-up and publication.")]
    sync_share: Annotated[float, Metric("share", "Part of the training time spent on exchange between workers.")]
    sync_bytes: Annotated[int, Metric("bytes", "Sent by all workers to each other.")]
    optimizer_bytes: Annotated[int, Metric("bytes", "Optimizer state written to and read from the lake.")]
    states_lost: Annotated[int, Metric("workers", "Times a worker did not find its latest optimizer state.")]
    cpu_load: Annotated[float, Metric("cores", "CPU time of rank 0 per second.")]
    dtype: Annotated[str, Metric("", "Data type of the arithmetic.", Show.CARD)]
    device: Annotated[str, Metric("", "Device that the workers trained on: cpu or cuda.")]
    peak_resident_bytes: Annotated[int, Metric("bytes", "Largest resident memory of a worker.")]
    stopped_early: Annotated[bool, Metric("", "True if train.patience ended the training.")]
    best_step: Annotated[int, Metric("steps", "Step with the lowest validation loss.", Show.CARD)]
    best_valid_loss: Annotated[float | None, Metric(LOSS_UNIT, "Lowest validation loss.", Show.CARD)]
    restarts: Annotated[int, Metric("", "Restarts after lost workers.")]
    rollbacks: Annotated[int, Metric("", "Batches left out after a divergence.")]
    workers: Annotated[int, Metric("workers", "Workers at the end of the training.")]


class GenerateStats(StepStats, total=False):
    """Statistics of the generate step."""

    num_samples: Annotated[int, Metric("samples", "Continuations generated.")]
    num_tokens: Annotated[int, Metric("tokens", "Tokens generated.")]
    num_prompts_cut: Annotated[int, Metric("prompts", "Prompts whose beginning did not fit the context.")]
    num_prompts_with_unknown_words: Annotated[int, Metric("prompts", "Prompts with words outside the vocabulary.")]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Generation speed, start-up included.")]
    task_tokens_per_second: Annotated[float, Metric("tokens/s", "Generation speed of one task while it decodes.")]
    generation_seconds: Annotated[float, Metric("s", "Duration of the generation.")]
    first_prompt: Annotated[str, Metric("", "The first prompt.")]
    first_sample: Annotated[str, Metric("", "The first continuation of it.")]


class StageRow(TypedDict):
    """A row of ``stats/spark.csv``, which puts the step's name before it: one attempt of a Spark stage."""

    stage: Annotated[int, Metric("", "Spark's number of the stage.", Show.TABLE)]
    attempt: Annotated[int, Metric("", "Number of the attempt, from 0.")]
    description: Annotated[str, Metric("", "What the stage does.")]
    epoch: Annotated[float, Metric("epochs", "Epoch that a stage of training belongs to; else 0.", Show.TABLE)]
    status: Annotated[str, Metric("", "Spark's status: COMPLETE, FAILED, SKIPPED.")]
    executors: Annotated[int, Metric("executors", "Executors that ran tasks of the stage.")]
    tasks: Annotated[int, Metric("tasks", "Tasks of the stage.", Show.TABLE)]
    failed_tasks: Annotated[int, Metric("tasks", "Tasks that failed.", Show.TABLE)]
    killed_tasks: Annotated[int, Metric("tasks", "Tasks that were killed.")]
    seconds: Annotated[float, Metric("s", "Duration of the stage.", Show.TABLE)]
    task_seconds: Annotated[float, Metric("s", "Run time of all tasks, failed ones included.")]
    task_seconds_mean: Annotated[float, Metric("s", "Mean run time of a task.", Show.TABLE)]
    task_seconds_max: Annotated[float, Metric("s", "Longest run time of a task that succeeded.", Show.TABLE)]
    cpu_seconds: Annotated[float, Metric("s", "CPU time of all tasks.")]
    gc_seconds: Annotated[float, Metric("s", "Garbage collection of the JVM.", Show.TABLE)]
    input_bytes: Annotated[int, Metric("bytes", "Input that Spark read.")]
    output_bytes: Annotated[int, Metric("bytes", "Output that Spark wrote.")]
    shuffle_read_bytes: Annotated[int, Metric("bytes", "Shuffle data read.", Show.TABLE)]
    shuffle_write_bytes: Annotated[int, Metric("bytes", "Shuffle data written.", Show.TABLE)]
    memory_spilled_bytes: Annotated[int, Metric("bytes", "Data spilled, by its size in memory.")]
    disk_spilled_bytes: Annotated[int, Metric("bytes", "Data spilled, by its size on disk.", Show.TABLE)]
    result_bytes: Annotated[int, Metric("bytes", "Results that tasks sent to the driver.")]


class ExecutorRow(TypedDict):
    """A row of ``stats/executors.csv``, which puts the step's name before it: one executor over the whole step."""

    executor: Annotated[str, Metric("", "Spark's name of the executor.", Show.TABLE)]
    address: Annotated[str, Metric("", "Host and port.", Show.TABLE)]
    active: Annotated[int, Metric("", "1 if the executor lived at the end of the step, else 0.")]
    cores: Annotated[int, Metric("cores", "Cores of the executor.", Show.TABLE)]
    tasks: Annotated[int, Metric("tasks", "Tasks that it ran.", Show.TABLE)]
    failed_tasks: Annotated[int, Metric("tasks", "Tasks that failed.", Show.TABLE)]
    task_seconds: Annotated[float, Metric("s", "Run time of all tasks.", Show.TABLE)]
    gc_seconds: Annotated[float, Metric("s", "Garbage collection of the JVM.", Show.TABLE)]
    input_bytes: Annotated[int, Metric("bytes", "Input that Spark read.")]
    shuffle_read_bytes: Annotated[int, Metric("bytes", "Shuffle data read.")]
    shuffle_write_bytes: Annotated[int, Metric("bytes", "Shuffle data written.")]
    storage_memory_bytes: Annotated[int, Metric("bytes", "Memory for cached data.")]
    cached_rdd_blocks: Annotated[int, Metric("blocks", "Cached blocks.")]
    cached_memory_bytes: Annotated[int, Metric("bytes", "Cached data in memory.", Show.TABLE)]
    cached_disk_bytes: Annotated[int, Metric("bytes", "Cached data on disk.", Show.TABLE)]


STATISTICS: Mapping[str, type] = MappingProxyType(
    {"windows": WindowsStats, "train": TrainStats, "generate": GenerateStats}
)
"""The statistics of each step, by the step's name."""


SUMMARY_METRICS = tuple((step, name) for step in ("train", "windows") for name in names(STATISTICS[step], Show.SUMMARY))
"""The step and the name of each metric at the top of ``stats.json``."""
