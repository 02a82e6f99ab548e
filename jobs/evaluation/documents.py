"""Computes the losses of a model on each document of a corpus. Each task takes a part of the corpus.

A document is read as the tokenize step reads it, and scored as a whole with the model's own tokenizer (see
`jobs.evaluation.losses`). Tasks write the losses to files of the lake and return sums. So the memory of the tasks and
of the driver does not grow with the number of documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import ByteRange, divide_sources
from jobs.corpus.documents import Documents
from jobs.corpus.reading import read_documents
from jobs.errors import InputError
from jobs.evaluation.losses import load_cached, score_texts
from jobs.lake import store
from jobs.lake.manifest import FileEntry
from jobs.lake.models import UsedModel
from jobs.lake.strict_json import to_jsonl
from jobs.sources.listing import Source

DOCUMENTS = "documents"
"""The prefix of the names of the files that hold the losses."""
MOST_ROWS = 1 << 16
"""The largest number of documents in a file that holds losses."""
_PART_BYTES, _MOST_PARTS = 1 << 20, 4096


@dataclass(frozen=True)
class Part:
    """A part of a corpus for one task."""

    number: int
    ranges: Sequence[ByteRange]


@dataclass(frozen=True)
class ScoredPart:
    """The files with the losses of a part's documents, and the sum of these losses."""

    files: tuple[FileEntry, ...]
    """The entries of the files, each with the counts `documents` and `bytes` (of text)."""
    loss: float
    """The sum, in the unit of the model's loss. It is not finite if the loss of a document is not finite."""


def divide(sources: Sequence[Source], settings: TokenizeConfig) -> list[Part]:
    """Divide a corpus into parts of 1 MiB. The parts of a large corpus are larger, up to `tokenize.split_bytes`.

    Scoring takes far longer than reading, so parts are smaller than those of the tokenize step.
    """
    size = max(_PART_BYTES, sum(source.size for source in sources) // _MOST_PARTS)
    groups = divide_sources(sources, min(size, settings.split_bytes), whole_files=settings.documents == "file")
    return [Part(number, ranges) for number, ranges in enumerate(groups)]


def score_documents(
    part: Part, *, folder_uri: str, model: UsedModel, settings: TokenizeConfig, threads: int
) -> ScoredPart:
    """Score the documents that begin in a part of the corpus, and write their losses below `folder_uri`.

    Each line of a file has a document's source, its offset in the source (see `Documents`), its length in bytes, and
    its loss in the unit of the model's loss. The loss is null if it is not finite.

    Raises:
        InputError: if a file cannot be read, or the model's tokenizer cannot encode a text in it.
    """
    torch.set_num_threads(threads)
    files, loss, rows = list[FileEntry](), 0.0, list[dict[str, Any]]()
    for source, batch in _batches(part, settings):
        found = _score(source, batch, model)
        loss += sum(found)
        rows += [
            {"source": source.name, "offset": offset, "bytes": size, "loss": each}
            for offset, size, each in zip(batch.offsets.tolist(), batch.texts.sizes.tolist(), found, strict=True)
        ]
        while len(rows) >= MOST_ROWS:
            files.append(_write(folder_uri, part, rows[:MOST_ROWS]))
            del rows[:MOST_ROWS]
    if rows:
        files.append(_write(folder_uri, part, rows))
    return ScoredPart(tuple(files), loss)


def _batches(part: Part, settings: TokenizeConfig) -> Iterator[tuple[Source, Documents]]:
    for each in part.ranges:
        yield from ((each.source, batch) for batch in read_documents(each, settings) if len(batch.texts))


def _score(source: Source, batch: Documents, model: UsedModel) -> list[float]:
    """Return the loss of each document of a batch.

    Raises:
        InputError: if the tokenizer cannot encode a text. The message starts with the URI of the file.
    """
    loaded, tokenizer = load_cached(model.uri, model.fingerprint)
    try:
        return score_texts([text.decode() for text in batch.texts], loaded, tokenizer)
    except InputError as error:
        raise InputError(f"{source.uri}: {error}") from None


def _write(folder_uri: str, part: Part, rows: Sequence[dict[str, Any]]) -> FileEntry:
    num_bytes = sum(row["bytes"] for row in rows)
    name = f"{DOCUMENTS}-{part.number:05d}.jsonl"
    return store.write_shard(folder_uri, name, to_jsonl(rows), documents=len(rows), bytes=num_bytes)
