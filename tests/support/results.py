"""Runs with results, written as steps write them, without training."""

import math

from jobs.config import Config
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import join
from jobs.statistics.writer import write_step

TOKENIZE = {
    "num_files": 3, "num_documents": 38_942, "num_empty_documents": 12, "num_duplicate_documents": 40,
    "num_bytes": 5_057_198, "num_tokens": 1_612_539, "vocab_size": 4096, "bytes_per_token": 3.16,
    "tokens_per_document_p50": 25, "tokens_per_document_histogram": [[1, 3], [2, 40], [32, 20_000], [64, 18_899]],
}  # fmt: skip
WINDOWS = {
    "num_train_windows": 10_575, "num_valid_windows": 2_022, "train_tokens": 1_353_000, "valid_tokens": 259_000,
    "split": "source", "ngram_leak": 0.0123, "num_valid_documents_also_in_train": 7, "unigram_loss": 6.463,
    "most_frequent_tokens": [[",", 0.05], [" the", 0.03], ["\n", 0.025]],
}  # fmt: skip
TRAIN = {
    "valid_loss": 4.3625, "train_loss": 4.1, "unigram_loss": 6.463, "bigram_loss": 4.907, "bits_per_byte": 2.0452,
    "valid_accuracy": 0.21, "unigram_accuracy": 0.05, "perplexity": 78.4, "tokens_per_second": 21_480.5,
    "num_parameters": 1_377_408,
}  # fmt: skip


def stage(number: int, tasks: int = 8, longest: float = 4.5) -> dict[str, object]:
    return {
        "stage": number, "attempt": 0, "description": "train", "epoch": 0, "status": "COMPLETE", "tasks": tasks,
        "failed_tasks": number % 2, "seconds": 9.0, "task_seconds": 12.0, "task_seconds_mean": 1.5,
        "task_seconds_max": longest, "shuffle_read_bytes": 3 << 20, "shuffle_write_bytes": 5 << 20, "gc_seconds": 0.1,
    }  # fmt: skip


def training_row(step: int, *, is_evaluated: bool) -> dict[str, object]:
    """Return the metrics of a step, of a loss that falls."""
    loss = 4.0 + 4.4 * math.exp(-step / 120)
    row = {
        "step": step, "epoch": step / 330, "tokens": step * 4096, "unigram_loss": 6.463, "bigram_loss": 4.907,
        "unigram_accuracy": 0.05, "step_milliseconds": 190.0 + step % 7, "sync_milliseconds": 4.0,
        "sync_bytes": 11_019_264, "tokens_per_second": 21_000.0 + 130 * (step % 9),
        "resident_bytes": 900_000_000 + step * 10_000, "gpu_bytes": 0,
        "cpu_load": 0.97, "loss": loss + 0.05 * math.sin(step),
        "learning_rate": 0.003 * min(1, step / 60) * (1 - step / 700),
        "gradient_norm": 0.4 + math.exp(-step / 40), "gradient_norms": {}, "seconds": step * 0.19, "samples": "0",
    }  # fmt: skip
    if is_evaluated:
        row |= {
            "train_loss": loss, "valid_loss": loss + 0.1 + step / 9000, "train_accuracy": 0.3 * (1 - loss / 10),
            "valid_accuracy": 0.28 * (1 - loss / 10), "perplexity": math.exp(loss), "bits_per_byte": loss / 2.13,
        }  # fmt: skip
    return row


def configure(run: Run, **values: object) -> None:
    """Write the configuration of a run."""
    config = Config.model_validate({"corpus": "file:///texts/shakespeare", "preset": "demo", **values})
    store.write_bytes(run.config, config.to_json().encode())


def write_rows(run: Run, num_steps: int, every: int, attempt: int = 0) -> None:
    """Write the metrics of a training, as a part."""
    rows = [training_row(step, is_evaluated=step % every == 0) for step in range(1, num_steps + 1)]
    store.write_bytes(join(run.metrics_parts, f"part-{attempt:04d}-a-000000.jsonl"), to_jsonl(rows))


def finish(run: Run, **train: object) -> Run:
    """Write everything that the report of a finished run shows."""
    configure(run, chosen=("train.seed",))
    base = {"error": None, "engine": "spark", "started": 1_795_572_000.0}
    write_step(run, "tokenize", {**base, **TOKENIZE, "seconds": 3.0, "stages": [stage(0)], "executors": []})
    write_step(run, "windows", {**base, **WINDOWS, "seconds": 5.0, "stages": [stage(1, 4, 1.6)], "executors": []})
    write_rows(run, 600, 30)
    write_step(run, "train", {**base, **TRAIN, **train, "seconds": 134.0, "stages": [stage(2)], "executors": []})
    samples = [
        {"prompt": "The man starts with", "text": " the king\nAnd at the very morning of my friend,--"},
        {"prompt": "My lord,", "text": " I have a son of York, and he is well."},
    ]
    store.write_bytes(join(run.generate, "samples.jsonl"), to_jsonl(samples))
    write_step(run, "generate", {**base, "num_samples": 2, "seconds": 4.0, "stages": [], "executors": []})
    return run
