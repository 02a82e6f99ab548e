"""The statistics that steps write to ``stats/<step>.json``, and the tables of Spark's stages and executors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypedDict

from jobs.metrics import Metric, Show, names
from jobs.metrics.columns import HEADLINE, LOSS_UNIT, Quality


class StepStats(TypedDict, total=False):
    """Statistics that every step of the pipeline writes to ``stats/<step>.json``."""

    reused: Annotated[bool, Metric("", "True if the result of the step existed before.")]
    error: Annotated[str | None, Metric("", "Message of the error that ended the step.")]
    engine: Annotated[str, Metric("", "Engine that ran the step: inline or spark.")]
    started: Annotated[float, Metric("s", "Start of the step, in seconds since 1970.")]
    seconds: Annotated[float, Metric("s", "Duration of the step.")]
    driver_resident_bytes: Annotated[int, Metric("bytes", "Resident memory of the driver at the end of the step.")]
    driver_cpu_load: Annotated[float, Metric("cores", "CPU time of the driver per second.")]


class TokenizeStats(StepStats, total=False):
    """Statistics of the tokenize step. Those that describe the dataset itself are also stored with it."""

    tokenizer_from: Annotated[str, Metric("", "Origin of the tokenizer: trained, or where it was taken from.")]
    reused_sources: Annotated[int, Metric("files", "Files whose tokens were taken from an earlier dataset.")]
    new_sources: Annotated[int, Metric("files", "Files that were encoded.")]
    num_files: Annotated[int, Metric("files", "Files of the corpus.")]
    num_left_out_files: Annotated[
        int,
        Metric("files", "Files and folders of the corpus that were left out: hidden, or not named as text."),
    ]
    first_left_out_files: Annotated[list[str], Metric("", "The first five names that were left out.")]
    num_documents: Annotated[int, Metric("documents", "Documents in the dataset.")]
    num_empty_documents: Annotated[int, Metric("documents", "Documents without text; left out.")]
    num_empty_files: Annotated[int, Metric("files", "Files without text.")]
    num_dictionary_files: Annotated[
        int, Metric("files", "Files of token ids that are dictionaries, not texts: their words are sorted.")
    ]
    num_null_records: Annotated[int, Metric("records", "Records whose text field is null; left out.")]
    num_replaced_letters: Annotated[int, Metric("characters", "Invalid bytes, replaced by U+FFFD.")]
    num_byte_order_marks: Annotated[int, Metric("files", "Files with a byte order mark; removed.")]
    num_crlf_line_ends: Annotated[int, Metric("lines", "Lines that end with carriage return and line feed.")]
    num_cr_line_ends: Annotated[int, Metric("lines", "Lines that end with a carriage return alone.")]
    num_nul_bytes: Annotated[int, Metric("bytes", "NUL bytes in the text.")]
    num_ignored_bytes: Annotated[
        int,
        Metric("bytes", "Bytes after the end of .gz, .bz2 and .xz data. They are ignored, as gzip, bzip2 and xz do."),
    ]
    num_markup_files: Annotated[
        int, Metric("files", "Text files that begin as HTML or XML; their tags are part of the text.")
    ]
    num_divided_documents: Annotated[
        int, Metric("documents", "Long documents that were cut into several documents (tokenize.max_piece_bytes).")
    ]
    num_gutenberg_documents: Annotated[int, Metric("documents", "Documents whose Gutenberg license was removed.")]
    num_unmarked_texts: Annotated[
        int, Metric("files or records", "Texts without a mark of Project Gutenberg, kept whole (drop_gutenberg).")
    ]
    num_normalized_documents: Annotated[int, Metric("documents", "Documents changed by Unicode normalization.")]
    num_too_short_documents: Annotated[int, Metric("documents", "Documents left out as too short.")]
    num_too_long_documents: Annotated[int, Metric("documents", "Documents left out as too long.")]
    num_duplicate_documents: Annotated[int, Metric("documents", "Exact duplicates left out.")]
    num_near_duplicate_documents: Annotated[int, Metric("documents", "Near duplicates left out.")]
    num_forgotten_documents: Annotated[int, Metric("documents", "Documents that the lake has forgotten; left out.")]
    num_bytes: Annotated[int, Metric("bytes", "UTF-8 text of the documents.")]
    num_tokens: Annotated[int, Metric("tokens", "Tokens, including one end-of-text per document.")]
    vocab_size: Annotated[int, Metric("tokens", "Size of the vocabulary.")]
    dtype: Annotated[str, Metric("", "Data type of the stored tokens.")]
    bytes_per_token: Annotated[float, Metric("bytes/token", "Mean length of a token.")]
    tokens_per_document_mean: Annotated[float, Metric("tokens", "Mean length of a document.")]
    tokens_per_document_p5: Annotated[int, Metric("tokens", "5th percentile of the length of a document.")]
    tokens_per_document_p50: Annotated[int, Metric("tokens", "Median length of a document.")]
    tokens_per_document_p95: Annotated[int, Metric("tokens", "95th percentile of the length of a document.")]
    tokens_per_document_max: Annotated[int, Metric("tokens", "Length of the longest document.")]
    tokens_per_document_histogram: Annotated[
        list[list[int]],
        Metric("", "Histogram of lengths: pairs of the upper bound of a bin, a power of two, and its documents."),
    ]
    vocabulary_seconds: Annotated[float, Metric("s", "Time to train the tokenizer.")]
    encode_seconds: Annotated[float, Metric("s", "Time to encode the documents.")]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Encoding speed.")]
    bytes_per_second: Annotated[float, Metric("bytes/s", "Encoding speed.")]


class WindowsStats(StepStats, total=False):
    """Statistics of the windows step. Those that describe the dataset itself are also stored with it."""

    size: Annotated[int, Metric("tokens", "Inputs of a window.")]
    stride: Annotated[int, Metric("tokens", "Distance between the first tokens of two windows.")]
    over: Annotated[str, Metric("", "Setting windows.over: stream or document.")]
    last: Annotated[str, Metric("", "Setting windows.last: the treatment of the end of a stream or document.")]
    split: Annotated[str, Metric("", "Method that split the documents into training and validation.")]
    split_draw: Annotated[int, Metric("", "Number of the draw; above 0 if draw 0 did not give the wanted share.")]
    split_threshold: Annotated[float, Metric("", "Draw below which a document is for validation.")]
    split_note: Annotated[
        str, Metric("", "Why the share of validation is not near windows.valid_fraction; else empty.")
    ]
    dtype: Annotated[str, Metric("", "Data type of the stored tokens.")]
    vocab_size: Annotated[int, Metric("tokens", "Size of the vocabulary.")]
    num_train_windows: Annotated[int, Metric("windows", "Windows to train on.", Show.SUMMARY)]
    num_valid_windows: Annotated[int, Metric("windows", "Windows to validate on.", Show.SUMMARY)]
    valid_window_share: Annotated[float, Metric("share", "Validation windows as a share of all windows.")]
    num_train_documents: Annotated[int, Metric("documents", "Training documents, and parts of cut ones.")]
    num_valid_documents: Annotated[int, Metric("documents", "Validation documents, and parts of cut ones.")]
    num_skipped_documents: Annotated[int, Metric("documents", "Documents shorter than a window; left out.")]
    num_cut_documents: Annotated[int, Metric("documents", "Long documents with parts on both sides of the split.")]
    num_gap_tokens: Annotated[int, Metric("tokens", "Tokens left out where documents were cut.")]
    num_gap_bytes: Annotated[int, Metric("bytes", "Text left out where documents were cut.")]
    num_left_out_documents: Annotated[
        int, Metric("documents", "Documents nearly equal to documents of both sides; left out (windows.split=fixed).")
    ]
    num_new_documents: Annotated[
        int, Metric("documents", "Documents whose side this run decided (windows.split=fixed).")
    ]
    num_new_left_out_documents: Annotated[
        int, Metric("documents", "New documents nearly equal to documents of both sides; left out.")
    ]
    num_new_tokens: Annotated[int, Metric("tokens", "Tokens of the new documents.")]
    new_duplicate_share: Annotated[
        float, Metric("share", "New documents that are equal or nearly equal to an earlier one.")
    ]
    new_unigram_loss: Annotated[
        float | None, Metric("nats per token", "Loss of the new text under the frequencies of the old tokens (drift).")
    ]
    old_unigram_loss: Annotated[
        float | None, Metric("nats per token", "Loss of the old text under the same frequencies, for comparison.")
    ]
    train_tokens: Annotated[int, Metric("tokens", "Training tokens.")]
    valid_tokens: Annotated[int, Metric("tokens", "Validation tokens.")]
    num_uncovered_tokens: Annotated[
        int, Metric("tokens", "Tokens at the end of a stream or document that are in no window.")
    ]
    num_shifted_windows: Annotated[int, Metric("windows", "Last windows that were moved back to end with the text.")]
    train_bytes: Annotated[int, Metric("bytes", "UTF-8 text of the training documents.")]
    valid_bytes: Annotated[int, Metric("bytes", "UTF-8 text of the validation documents.")]
    valid_share: Annotated[float, Metric("share", "Validation text as a share of all bytes.")]
    unigram_loss: Annotated[float, Metric("nats per token", "Loss of the unigram baseline on the validation text.")]
    bigram_loss: Annotated[float, Metric("nats per token", "Loss of the bigram baseline on the validation text.")]
    unigram_accuracy: Annotated[float, Metric("share", "Validation tokens that are the most frequent training token.")]
    token_entropy: Annotated[float, Metric("nats per token", "Entropy of the token frequencies of the whole text.")]
    num_compared_valid_documents: Annotated[
        int, Metric("documents", "Validation documents looked up among the training documents.")
    ]
    num_valid_documents_also_in_train: Annotated[
        int, Metric("documents", "Validation documents that were found among the training documents.")
    ]
    end_of_text: Annotated[int, Metric("", "Id of the end-of-text token.")]
    windows_per_shard_max: Annotated[int, Metric("windows", "Windows of the largest shard.")]
    windows_per_shard_mean: Annotated[float, Metric("windows", "Mean number of windows of a shard.")]
    unknown_share: Annotated[float, Metric("share", "Tokens of the text that are the unknown token.")]
    most_frequent_tokens: Annotated[list[list[str | float]], Metric("", "Text and share of the most frequent tokens.")]
    leak_ngram: Annotated[int, Metric("tokens", "Setting windows.leak_ngram: the length of the n-grams.")]
    ngram_leak: Annotated[
        float | None, Metric("share", "Validation n-grams that also occur in the training text (contamination).")
    ]
    num_compared_ngrams: Annotated[
        int, Metric("n-grams", "Validation n-grams that were looked up in the training text.")
    ]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Speed of the step.")]


class EmbedStats(StepStats, total=False):
    """Statistics of the embed step. Those that describe the dataset itself are also stored with it."""

    num_vectors: Annotated[int, Metric("vectors", "Tokens with a vector.")]
    size: Annotated[int, Metric("", "Features of a vector.")]
    num_tokens_without_vector: Annotated[int, Metric("tokens", "Tokens of the vocabulary without a vector.")]
    num_tokens: Annotated[int, Metric("tokens", "Tokens of the text.")]
    share_of_text: Annotated[float, Metric("share", "Tokens of the text that have a vector.")]
    embed_loss: Annotated[float, Metric("nats", "Mean loss of the pairs in the last round.")]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Training speed.")]


class TrainStats(StepStats, Quality, total=False):
    """Statistics of the train step. Losses and accuracies are those of the published checkpoint."""

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
    sync_bytes: Annotated[int, Metric("bytes", "Data that the workers sent to each other.")]
    optimizer_bytes: Annotated[int, Metric("bytes", "Optimizer state written to and read from the lake.")]
    states_lost: Annotated[int, Metric("workers", "Times a worker did not find its latest optimizer state.")]
    cpu_load: Annotated[float, Metric("cores", "CPU time of rank 0 per second.")]
    dtype: Annotated[str, Metric("", "Data type of the arithmetic.", Show.CARD)]
    device: Annotated[str, Metric("", "Device that the workers trained on: cpu or cuda.")]
    peak_resident_bytes: Annotated[int, Metric("bytes", "Largest resident memory of a worker.")]
    stopped_early: Annotated[bool, Metric("", "True if train.early_stopping_evals ended the training.")]
    stopped_by_time: Annotated[bool, Metric("", "True if train.max_seconds ended the training.")]
    stopped_by_budget: Annotated[bool, Metric("", "True if budget.usd or budget.usd_month ended the training.")]
    best_step: Annotated[int | None, Metric("steps", "Step with the lowest validation loss.", Show.CARD)]
    best_valid_loss: Annotated[float | None, Metric(LOSS_UNIT, "Lowest validation loss.", Show.CARD)]
    restarts: Annotated[int, Metric("", "Restarts after lost workers.")]
    rollbacks: Annotated[int, Metric("", "Batches left out after a divergence.")]
    workers: Annotated[int, Metric("workers", "Workers at the end of the training.")]
    weights_from: Annotated[str, Metric("", "Model whose weights training started from; scratch means random weights.")]
    new_text_share: Annotated[
        float | None, Metric("share", "Text in files that the run of the weights_from model did not have.")
    ]


class UsedModelStats(TypedDict, total=False):
    """The model that a run used instead of training one."""

    used_model: Annotated[str, Metric("", "Model that the run used, as use.model names it.", Show.SUMMARY)]
    used_model_uri: Annotated[str, Metric("", "URI of the used model.")]
    used_model_sha256: Annotated[str, Metric("", "Hash of the used model's weights.")]


class GenerateStats(StepStats, UsedModelStats, total=False):
    """Statistics of the generate step."""

    num_samples: Annotated[int, Metric("samples", "Continuations generated.")]
    num_tokens: Annotated[int, Metric("tokens", "Tokens generated.")]
    num_prompts_cut: Annotated[int, Metric("prompts", "Prompts whose beginning did not fit the context.")]
    num_prompts_with_unknown_words: Annotated[int, Metric("prompts", "Prompts with words outside the vocabulary.")]
    tokens_per_second: Annotated[float, Metric("tokens/s", "Generation speed, start-up included.")]
    task_tokens_per_second: Annotated[float, Metric("tokens/s", "Generation speed of one task while it decodes.")]
    generation_seconds: Annotated[float, Metric("s", "Duration of the generation.")]
    first_prompt: Annotated[str, Metric("", "The first prompt.")]
    first_sample: Annotated[str, Metric("", "The first continuation of the first prompt.")]


class BillStats(TypedDict, total=False):
    """Statistics that Airflow adds to ``stats/stats.json`` of a run that had a cluster of its own."""

    instance_seconds: Annotated[float, Metric("s", "Time of all instances of the clusters together.", Show.SUMMARY)]
    cost_usd: Annotated[
        float | None,
        Metric("USD", "Cost of all instances: 0 on the embedded EMR; null if a price is not known.", Show.SUMMARY),
    ]
    bill: Annotated[
        dict[str, object], Metric("", "Time and cost by step and by type of instance; whether the cost is final.")
    ]


class ScoreStats(StepStats, total=False):
    """Statistics of the score step: losses on the frozen evaluation set."""

    evaluation_set: Annotated[str, Metric("", "Version of the evaluation set.")]
    num_documents: Annotated[int, Metric("documents", "Documents of the evaluation set.")]
    num_bytes: Annotated[int, Metric("bytes", "Text of the evaluation set.")]
    frozen_loss_per_byte: Annotated[
        float | None, Metric("nats or squared distance per byte", "Loss on the evaluation set; null if not finite.")
    ]
    frozen_bits_per_byte: Annotated[
        float | None, Metric("bits per byte", "This loss in bits; null for models that predict embeddings.")
    ]
    champion_loss_per_byte: Annotated[
        float | None, Metric("nats or squared distance per byte", "Loss of the champion; null if it is not compared.")
    ]
    champion_bits_per_byte: Annotated[float | None, Metric("bits per byte", "Loss of the champion in bits.")]
    not_compared: Annotated[
        str, Metric("", "Why the champion has no scores; empty if it has scores, or if there is no champion.")
    ]
    scoring_seconds: Annotated[float, Metric("s", "Time to choose the documents and to score both models.")]


class EvaluateStats(StepStats, UsedModelStats, total=False):
    """Statistics of the evaluate step: losses of a model on whole documents of any text."""

    num_files: Annotated[int, Metric("files", "Files of the corpus.")]
    num_documents: Annotated[int, Metric("documents", "Documents of the text.", Show.SUMMARY)]
    num_bytes: Annotated[int, Metric("bytes", "UTF-8 text of the documents.", Show.SUMMARY)]
    num_parameters: Annotated[int, Metric("parameters", "Trained and fixed parameters of the model.", Show.SUMMARY)]
    loss_unit: Annotated[
        str, Metric("", "Unit of the losses: nats, or squared distance if the model predicts embeddings.", Show.SUMMARY)
    ]
    text_loss_per_byte: Annotated[
        float | None,
        Metric("", "Loss per byte of text, in the unit loss_unit; null if a loss is not finite.", Show.SUMMARY),
    ]
    text_bits_per_byte: Annotated[
        float | None,
        Metric("bits per byte", "Loss on this text in bits; null for models that predict embeddings.", Show.SUMMARY),
    ]
    evaluation_seconds: Annotated[float, Metric("s", "Time to check the text and to score it.")]
    bytes_per_second: Annotated[float, Metric("bytes/s", "Speed of checking and scoring.")]


class StageRow(TypedDict):
    """One attempt of a Spark stage: a row of ``stats/spark.csv``, which also has the name of the step."""

    stage: Annotated[int, Metric("", "Spark's number of the stage.", Show.TABLE)]
    attempt: Annotated[int, Metric("", "Number of the attempt, from 0.")]
    description: Annotated[str, Metric("", "What the stage does.")]
    epoch: Annotated[float, Metric("epochs", "Epoch of a stage of training; 0 for other stages.", Show.TABLE)]
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
    """One executor over a whole step: a row of ``stats/executors.csv``, which also has the name of the step."""

    executor: Annotated[str, Metric("", "Spark's name of the executor.", Show.TABLE)]
    address: Annotated[str, Metric("", "Host and port.", Show.TABLE)]
    active: Annotated[int, Metric("", "1 if the executor was running at the end of the step, else 0.")]
    cores: Annotated[int, Metric("cores", "Cores of the executor.", Show.TABLE)]
    tasks: Annotated[int, Metric("tasks", "Tasks that the executor ran.", Show.TABLE)]
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


STATISTICS: Mapping[str, type] = {
    "tokenize": TokenizeStats,
    "windows": WindowsStats,
    "embed": EmbedStats,
    "train": TrainStats,
    "generate": GenerateStats,
    "score": ScoreStats,
    "evaluate": EvaluateStats,
}
"""A dict from the name of each pipeline step to the class of its statistics."""

SUMMARY_METRICS = tuple(
    (step, name)
    for step in ("train", "windows", "generate", "evaluate")
    for name in names(STATISTICS[step], Show.SUMMARY)
)
"""The metrics at the top of ``stats.json``, each as a pair of the pipeline step and the metric's name."""
