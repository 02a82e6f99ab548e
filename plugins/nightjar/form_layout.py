"""The layout of the trigger form: its sections, the fields in each, and their titles, in the form's order.

Airflow shows fields without a section first and unfolded, and folds all sections. A setting that is not listed here
is in the section that belongs to the first part of its key. Its title is made from the rest of the key.
"""

from __future__ import annotations

from typing import Any

ESSENTIALS = {
    "corpus": "Text to train on",
    "preset": "Preset",
    "train.max_seconds": "Time limit of training, in seconds",
    "train.max_tokens": "Limit of training, in tokens",
    "train.epochs": "Passes over the text",
    "model.num_layers": "Size of the model: number of layers",
    "model.embedding_size": "Size of the model: width of its layers",
    "train.workers": "Number of workers",
}
"""The fields without a section, which Airflow shows unfolded."""

_FOLDED = {
    "Text and tokenizer": {
        "tokenize.documents": "How files are divided into documents",
        "tokenize.input": "Content of the files",
        "tokenize.field": "Field or column with the text",
        "tokenize.invalid_utf8": "Bytes that are not UTF-8",
        "tokenize.drop_gutenberg": "Leave out what Project Gutenberg adds",
        "tokenize.normalize_nfc": "Unicode normal form C",
        "tokenize.min_document_bytes": "Shortest document, in bytes",
        "tokenize.max_document_bytes": "Longest document, in bytes",
        "tokenize.max_piece_bytes": "Largest piece of a long document, in bytes",
        "tokenize.drop_duplicates": "Leave out duplicates",
        "tokenize.drop_near_duplicates": "Leave out near duplicates",
        "tokenize.kind": "Kind of tokens",
        "tokenize.lowercase": "Lower case",
        "tokenize.min_frequency": "Smallest number of occurrences of a word",
        "tokenize.tokenizer": "Origin of the vocabulary",
        "tokenize.vocab_size": "Size of the vocabulary",
        "tokenize.train_bytes": "Sample to train BPE on, in bytes",
        "tokenize.split_bytes": "Size of a task's part of a file, in bytes",
    },
    "Windows and validation": {
        "windows.size": "Tokens in a window",
        "windows.overlap": "Tokens that two windows share",
        "windows.over": "Windows across or within documents",
        "windows.last": "Tokens at the end that do not fill a window",
        "windows.split": "Split into training and validation",
        "windows.valid_fraction": "Fraction for validation",
        "windows.shard_tokens": "Tokens in a shard",
        "windows.seed": "Seed of the split",
        "windows.leak_ngram": "Length of the n-grams that measure contamination",
    },
    "Model": {
        "model.kind": "Kind of the model",
        "model.hidden_size": "Width of feed-forward blocks",
        "model.hidden_sizes": "Widths of a context model's dense layers",
        "model.num_heads": "Number of attention heads",
        "model.num_kv_heads": "Number of key and value heads",
        "model.positions": "Encoding of positions",
        "model.rope_theta": "Base of rotary wavelengths",
        "model.norm_epsilon": "Epsilon of RMSNorm",
    },
    "Training": {
        "train.batch_size": "Windows in a batch",
        "train.micro_batch_size": "Windows that a worker computes at once",
        "train.init": "Model to start from",
        "train.epochs_of_new_text": "Passes over new text",
        "train.embeddings": "Token vectors to start from",
        "train.early_stopping_evals": "Validations without progress that end training",
        "train.eval_every": "Steps between two validations",
        "train.eval_windows": "Windows of a validation",
        "train.dtype": "Number format",
        "train.device": "Processor or GPU",
        "train.compile": "Compile the model",
        "train.seed": "Seed of weights and order",
    },
    "Optimizer": {
        "train.optimizer": "Optimizer",
        "train.learning_rate": "Highest learning rate",
        "train.schedule": "Schedule of the learning rate",
        "train.min_learning_rate_ratio": "Last learning rate, relative to the highest",
        "train.decay_fraction": "Part of the run with a falling rate (wsd)",
        "train.decay_per_epoch": "Factor for each epoch (exponential)",
        "train.warmup_steps": "Steps of warm-up",
        "train.weight_decay": "Weight decay",
        "train.beta1": "Decay of the first moment",
        "train.beta2": "Decay of the second moment",
        "train.momentum": "Momentum",
        "train.nesterov": "Nesterov momentum",
        "train.max_gradient_norm": "Largest norm of the gradients",
    },
    "Workers": {
        "train.strategy": "How workers combine their results",
        "train.sync_every": "Steps in a round",
        "train.outer_learning_rate": "Outer learning rate (diloco)",
        "train.outer_momentum": "Outer momentum (diloco)",
        "train.delta_dtype": "Number format of weight deltas",
        "train.allreduce_steps": "Steps by all-reduce before the first round",
        "train.state_every": "Rounds between two copies of optimizer states",
    },
    "Checkpoints and faults": {
        "train.checkpoint_every": "Steps between two checkpoints",
        "train.checkpoint_seconds": "Longest time between two checkpoints, in seconds",
        "train.keep_checkpoints": "Number of checkpoints to keep",
        "train.keep_best": "Make the model from the best checkpoint",
        "train.max_restarts": "Largest number of restarts",
        "train.on_divergence": "What to do if training diverges",
        "train.max_rollbacks": "Largest number of rollbacks",
        "train.max_loss_rise": "Rise of the loss that counts as a divergence",
        "train.gang_timeout_seconds": "Longest wait for other workers, in seconds",
        "train.step_timeout_seconds": "Longest duration of a training step, in seconds",
    },
    "Generated text": {
        "generate.prompts": "Prompts",
        "generate.prompts_file": "File with prompts",
        "generate.prompt_unit": "Part of the file that is one prompt",
        "generate.num_samples": "Texts for each prompt",
        "generate.min_new_words": "Shortest text, in words",
        "generate.max_new_words": "Longest text, in words",
        "generate.max_new_tokens": "Longest text, in tokens",
        "generate.temperature": "Temperature",
        "generate.top_k": "Draw from this many of the most likely tokens (top k)",
        "generate.top_p": "Draw from the most likely tokens with this total probability (top p)",
        "generate.min_p": "Smallest relative probability (min p)",
        "generate.repetition_penalty": "Repetition penalty",
        "generate.stop": "Texts that end a continuation",
        "generate.seed": "Seed of the draws",
        "generate.dtype": "Number format",
    },
    "Use without training": {
        "use.model": "Model to use",
        "use.task": "What the model is used for",
    },
    "Promotion": {
        "promotion.enabled": "Promote the model if it is better",
        "promotion.error_rate": "Largest probability of a promotion by chance",
        "promotion.least_gain": "Smallest gain that is worth a change",
        "promotion.documents": "Documents in the evaluation set",
        "promotion.baseline": "What the validation loss must be below",
        "promotion.max_repetition": "Largest part of generated text that may repeat",
        "promotion.max_unknown": "Largest part of generated text that may be unknown",
        "promotion.canaries": "Prompts that a model must continue",
    },
    "Word vectors": {
        "embed.size": "Dimension of the vectors",
        "embed.window": "Largest distance of neighbours",
        "embed.negative": "Negative samples",
        "embed.epochs": "Passes over the tokens",
        "embed.min_count": "Smallest number of occurrences of a token",
        "embed.subsample": "Threshold for leaving out frequent tokens",
        "embed.learning_rate": "Learning rate",
        "embed.workers": "Number of workers",
        "embed.sync_tokens": "Tokens between two averages of the workers",
        "embed.seed": "Seed of the vectors",
    },
    "Budget": {
        "budget.usd": "Most that the run may cost, in USD",
        "budget.usd_month": "Most that the pipeline may cost in a month, in USD",
    },
    "Spark": {
        "spark.app_name": "Name of the application",
        "spark.master": "Spark master",
        "spark.deploy_mode": "Place of the driver",
        "spark.driver_memory": "Memory of the driver",
        "spark.executor_memory": "Memory of an executor's JVM",
        "spark.executor_overhead": "Memory of an executor outside its JVM",
        "spark.executors": "Number of executors",
        "spark.executor_cores": "Tasks of an executor at the same time",
    },
    "Cluster on AWS": {
        "cluster.job_flow_id": "Cluster of your own",
        "cluster.release_label": "EMR release",
        "cluster.primary_instance_types": "Types of the primary node",
        "cluster.core_instance_types": "Types of the core nodes",
        "cluster.core_instances": "Number of core nodes",
        "cluster.task_instance_types": "Types of the task nodes",
        "cluster.task_instances": "Number of task nodes",
        "cluster.spot_timeout_minutes": "Longest wait for spot nodes, in minutes",
        "cluster.root_volume_gb": "Disk of a node, in GB",
        "cluster.subnet_ids": "Subnets",
        "cluster.primary_security_group": "Security group of the primary node",
        "cluster.core_security_group": "Security group of the other nodes",
        "cluster.service_security_group": "Security group of the EMR service",
        "cluster.security_configuration": "Security configuration",
        "cluster.service_role": "Role of the EMR service",
        "cluster.instance_profile": "Instance profile of the nodes",
        "cluster.wheelhouse": "Folder of wheels",
        "cluster.owner": "Owner, for the bill",
        "cluster.idle_timeout_seconds": "Longest idle time, in seconds",
        "cluster.time_to_live_hours": "Time to live of the cluster, in hours",
        "cluster.step_timeout_seconds": "Longest duration of a step, in seconds",
    },
    "Logging": {"log_level": "Least severe log lines to write"},
}
_PLACES = {key: (section, title) for section, fields in _FOLDED.items() for key, title in fields.items()}
_OF_GROUP = {
    "tokenize": "Text and tokenizer",
    "windows": "Windows and validation",
    "model": "Model",
    "train": "Training",
    "generate": "Generated text",
    "use": "Use without training",
    "promotion": "Promotion",
    "embed": "Word vectors",
    "budget": "Budget",
    "spark": "Spark",
    "cluster": "Cluster on AWS",
}
"""The sections of the settings that are not listed above: a dict from the first part of a key to the section."""


def ordered(keys: set[str]) -> list[str]:
    """Return the keys in the order of the form."""
    order = {key: number for number, key in enumerate([*ESSENTIALS, *_PLACES])}
    sections = list(_FOLDED)
    return sorted(keys, key=lambda key: (_section_number(key, sections), order.get(key, len(order)), key))


def place(key: str) -> dict[str, Any]:
    """Return the title of a field, and its section if it has one."""
    if key in ESSENTIALS:
        return {"title": ESSENTIALS[key]}
    group, _, name = key.rpartition(".")
    words = name.replace("_", " ")
    section, title = _PLACES.get(key, (_OF_GROUP.get(group, "Logging"), words[:1].upper() + words[1:]))
    return {"title": title, "section": section}


def _section_number(key: str, sections: list[str]) -> int:
    return -1 if key in ESSENTIALS else sections.index(place(key)["section"])
