"""A small text, settings for it, and the checks of a finished run of the real job."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.lake.layout import Run
from jobs.lake.store import Store
from jobs.lake.uri import join, relative_name

POEM = "some say the world will end in fire and some say in ice from what they tasted of desire"
CONF = {
    "preset": "tiny",
    "tokenize.vocab_size": 400,
    "windows.size": 32,
    "train.epochs": 10,
    "train.eval_every": 50,
    "train.checkpoint_every": 10,
    "train.workers": 2,
    "generate.max_new_words": 5,
}
_FILES = {
    *("config.json", "datasets.json", "train/metrics.jsonl", "train/_manifest.json"),
    *("generate/generated.txt", "generate/samples.jsonl", "generate/_manifest.json"),
    *("model/config.json", "model/model.safetensors", "model/tokenizer.json"),
    *(
        f"stats/{name}"
        for name in ("stats.json", "metrics.csv", "spark.csv", "executors.csv", "stats.txt", "report.html")
    ),
    "train/tensorboard/events.out.tfevents.nightjar",
}


def poems() -> bytes:
    """Return 500 verses of the words of a poem, in an order of their own each."""
    words = POEM.split()
    lines = (" ".join(words[(i * j + i) % len(words)] for j in range(3, 17)) for i in range(500))
    return "\n\n".join(lines).encode()


def assert_complete(run: Run, store: Store, steps: Sequence[str], stats_dir: Path) -> Any:
    """Check the files and the statistics of a finished run; return the statistics of its steps."""
    found = {relative_name(file.uri, run.uri) for file in store.list_files(run.uri)}
    assert {*_FILES, *(f"stats/{step}.json" for step in steps)} - found == set()
    stats = store.read_json(join(run.stats, "stats.json"))
    assert stats["valid_loss"] < stats["unigram_loss"]
    assert stats["steps"]["train"]["workers"] == 2
    assert stats["steps"]["tokenize"]["engine"] == "spark"
    assert (stats_dir / run.folder / "metrics.csv").is_file()
    rows = csv.DictReader(io.StringIO(store.read_bytes(join(run.stats, "spark.csv")).decode()))
    assert {row["step"] for row in rows if row["status"] == "COMPLETE"} == set(steps)
    return stats["steps"]
