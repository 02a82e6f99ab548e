"""The benchmarks' text: Shakespeare's works or `TEXT=path`, repeated to any size."""

from __future__ import annotations

import os
import re
from pathlib import Path

from infra.lake.sample_corpus import shakespeare

CACHE = Path(".cache")
WORK = CACHE / "bench"
MB = 10**6
_FILE_BYTES = 32 * MB


def original() -> bytes:
    """Return the text once: a file, or all .txt files of a folder in order of their names."""
    source = Path(os.environ["TEXT"]) if os.environ.get("TEXT") else shakespeare(CACHE)
    paths = sorted(source.rglob("*.txt")) if source.is_dir() else [source]
    return b"\n\n".join(path.read_bytes().replace(b"\r\n", b"\n").strip() for path in paths) + b"\n\n"


def folder_of(size_bytes: int) -> Path:
    """Return a folder with about `size_bytes` of text in files of 32 MB, which is made on first use."""
    text = original()
    folder = WORK / f"text-{size_bytes // MB}-{len(text)}"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for number, start in enumerate(range(0, size_bytes, _FILE_BYTES)):
            length = min(_FILE_BYTES, size_bytes - start)
            (folder / f"{number:04d}.txt").write_bytes((text * (length // len(text) + 1))[:length])
    return folder


def documents(folder: Path) -> list[str]:
    """Return the paragraphs of all files in a folder, the input of every library."""
    texts = (path.read_text("utf-8", "ignore") for path in sorted(folder.glob("*.txt")))
    return [part for text in texts for part in re.split(r"\n\s*\n\s*", text.strip())]
