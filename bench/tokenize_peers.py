"""Tokenize a text with another library in .venv-bench: ``tokenize_peers.py NAME TOKENIZER TEXT_FOLDER CORES``.

It prints one JSON object: the seconds without start-up and loading, the bytes of text, the number of tokens, and the
first ids, which must equal ours. It imports nothing of the project, which is not installed in that environment.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def documents(folder: str) -> list[str]:
    """Return the paragraphs of all files in a folder."""
    texts = (path.read_text("utf-8", "ignore") for path in sorted(Path(folder).glob("*.txt")))
    return [part for text in texts for part in re.split(r"\n\s*\n\s*", text.strip())]


def tokenizers(tokenizer: str, folder: str, cores: int) -> dict[str, Any]:
    """Tokenize with Hugging Face tokenizers, in memory, in parallel."""
    from tokenizers import Tokenizer

    loaded, texts = Tokenizer.from_file(tokenizer), documents(folder)
    started = time.perf_counter()
    encoded = loaded.encode_batch(texts)
    return result(started, texts, sum(map(len, encoded)), encoded[0].ids)


def tiktoken(tokenizer: str, folder: str, cores: int) -> dict[str, Any]:
    """Tokenize with tiktoken, in memory, in parallel, with our vocabulary."""
    import tiktoken

    model = json.loads(Path(tokenizer).read_text("utf-8"))
    special = {token["content"]: token["id"] for token in model["added_tokens"]}
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(hidden)}
    ranks = {bytes(byte_of[c] for c in name): i for name, i in model["model"]["vocab"].items() if name not in special}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    encoding = tiktoken.Encoding("ours", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    texts = documents(folder)
    started = time.perf_counter()
    encoded = encoding.encode_ordinary_batch(texts, num_threads=cores)
    return result(started, texts, sum(map(len, encoded)), encoded[0])


def datatrove(tokenizer: str, folder: str, cores: int) -> dict[str, Any]:
    """Tokenize with datatrove's pipeline on `cores` processes: read JSONL, encode, write shards."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    texts = documents(folder)
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "in").mkdir()
        for part in range(cores):
            lines = (json.dumps({"text": text, "id": str(i)}) for i, text in enumerate(texts[part::cores]))
            (Path(work) / "in" / f"{part}.jsonl").write_text("\n".join(lines), "utf-8")
        end_of_text = "<|endoftext|>"
        write = DocumentTokenizer(
            f"{work}/out", tokenizer, f"{work}/local", eos_token=end_of_text, shuffle_documents=False
        )
        pipeline = [JsonlReader(f"{work}/in"), write]
        started = time.perf_counter()
        LocalPipelineExecutor(pipeline, tasks=cores, workers=cores, logging_dir=f"{work}/logs").run()
        measured = result(started, texts, 0, [])
        size = sum(path.stat().st_size for path in (Path(work) / "out").glob("*.ds"))
    return measured | {"tokens": size // 2}


def result(started: float, texts: list[str], tokens: int, first: list[int]) -> dict[str, Any]:
    """Stop the clock and return the measurements."""
    seconds = time.perf_counter() - started
    size = sum(len(text.encode()) for text in texts)
    return {"seconds": seconds, "bytes": size, "documents": len(texts), "tokens": tokens, "first": first[:20]}


if __name__ == "__main__":
    name, tokenizer_path, text_folder, num_cores = sys.argv[1:]
    os.environ |= {"RAYON_NUM_THREADS": num_cores, "TOKENIZERS_PARALLELISM": "true"}
    run = {"tokenizers": tokenizers, "tiktoken": tiktoken, "datatrove": datatrove}[name]
    sys.stdout.write(json.dumps(run(tokenizer_path, text_folder, int(num_cores))) + "\n")
