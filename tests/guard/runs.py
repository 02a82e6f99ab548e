"""Runs of the pipeline from a source tree, started by its command line alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

LIMIT_SECONDS = 1800
FOREIGN = ("AIRFLOW_", "AWS_", "NIGHTJAR_", "PYSPARK_", "SPARK_")
"""Prefixes of environment variables that could change a run."""
SMALL = {
    "tokenize.vocab_size": 300, "tokenize.split_bytes": 4096, "windows.shard_tokens": 4096,
    "embed.size": 32, "embed.workers": 2, "embed.epochs": 1, "embed.sync_tokens": 4096,
    "model.embedding_size": 32, "model.hidden_size": 64, "model.hidden_sizes": [64], "model.num_layers": 2,
    "model.num_heads": 2, "model.num_kv_heads": 2, "train.workers": 2, "train.batch_size": 16,
    "train.max_tokens": 100_000, "train.eval_every": 20, "train.eval_windows": 128, "train.checkpoint_every": 30,
    "train.dtype": "float32", "generate.num_samples": 2, "generate.max_new_words": 10,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A preset with the settings that scale it down."""

    preset: str
    settings: dict[str, object] = field(default_factory=dict)
    has_embeddings: bool = False


CASES = {
    "tiny": Case("tiny", {"windows.size": 32, "train.epochs": 3}),
    "averaged-dense": Case("averaged-dense", {"train.epochs": 2, "train.batch_size": 64}),
    "word2vec-attention": Case("word2vec-attention", {"train.workers": 1, "windows.overlap": 12}, has_embeddings=True),
    "embedding-regression": Case(
        "embedding-regression", {"train.workers": 1, "windows.size": 8, "windows.overlap": 6, "train.epochs": 2}
    ),
    "diloco": Case("tiny", {"train.strategy": "diloco", "train.sync_every": 15, "windows.size": 32, "train.epochs": 3}),
}
ENGINES = ("inline", "spark")
NAMES = [f"{case}/{engine}" for case in CASES for engine in ENGINES]


def select(words: list[str]) -> list[str]:
    """Return the names of the runs that each word selects: by name, by case or by engine; no word selects all.

    Raises:
        ValueError: if a word selects none.
    """
    for word in words:
        if not any(word in (name, *name.split("/")) for name in NAMES):
            raise ValueError(f"no run is called '{word}'; choose among {', '.join((*CASES, *ENGINES, NAMES[0]))}")
    return [name for name in NAMES if not words or set(words) & {name, *name.split("/")}]


@dataclass(frozen=True)
class Tree:
    """A source tree and the folder of the lakes that its runs write, one for each run."""

    root: Path
    lakes: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which Python imports the modules of this tree."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        # One thread each, as in the tests: several processes train at once on few cores.
        return kept | {"PYTHONPATH": f"{self.root}{os.pathsep}{self.root / 'plugins'}", "OMP_NUM_THREADS": "1"}

    def check_imports(self) -> None:
        """Raise a RuntimeError if Python would import the package from elsewhere, such as from an installed one."""
        command = [sys.executable, "-c", "import jobs; print(jobs.__file__)"]
        done = subprocess.run(command, check=False, cwd=self.root, env=self.environment, stdout=subprocess.PIPE)
        found = Path(os.fsdecode(done.stdout).strip())
        if self.root not in found.parents:
            raise RuntimeError(f"Python imports '{found}' instead of the package 'jobs' below {self.root}")

    def lake(self, name: str) -> Path:
        """Return the lake of a run."""
        return self.lakes / name

    def run(self, name: str, corpus: Path) -> str:
        """Run all steps; return why the run failed, or an empty text."""
        case_name, engine = name.split("/")
        case, log = CASES[case_name], self.lakes / f"{name}.log"
        command = [sys.executable, "-m", "jobs", "run", "--corpus", str(corpus), "--lake", str(self.lake(name))]
        command += ["--preset", case.preset, "--engine", engine, "--run-id", "guard"]
        for key, value in (SMALL | case.settings).items():
            command += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output, suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                command, check=False, timeout=LIMIT_SECONDS, cwd=self.root, env=self.environment,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            last_line = log.read_text("utf-8", "replace").strip().rpartition("\n")[2]
            return f"exit code {done.returncode}: {last_line or 'no output'}" if done.returncode else ""
        return f"no end after {LIMIT_SECONDS} seconds"


def resolve_commit(root: Path, revision: str) -> str:
    """Return the full name of a commit.

    Raises:
        ValueError: if the repository has no such commit.
    """
    command = ["git", "rev-parse", "--quiet", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"'{revision}' is no commit of this repository")
    return done.stdout.strip()


@contextmanager
def checkout(root: Path, commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out into a git worktree at `folder`, and remove the worktree at the end."""
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], cwd=root, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=root, check=True)


def write_corpus(root: Path, folder: Path) -> Path:
    """Write two short text files and return their folder."""
    folder.mkdir(parents=True)
    (folder / "license.txt").write_text((root / "LICENSE").read_text("utf-8") * 2, "utf-8")
    shutil.copy(root / "tests" / "data" / "scandal.txt", folder / "scandal.txt")
    return folder
