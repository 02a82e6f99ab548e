"""Computes the losses of a model on whole documents, each summed over the tokens of the document.

A document is encoded with an end-of-text token before and after it. Each token except the first is predicted from the
tokens before it. So the losses of models with different vocabularies cover the same text. If the text cannot be
restored from the tokens alone, the nats that are needed to restore it are added to the loss (see
`jobs.evaluation.lost_text`). Nothing is added for models that predict embeddings, because their losses are not in nats.

A transformer reads documents longer than its context in windows that overlap by half. After the first window, each
token is predicted from at least half a context. A context model reads one window for each token. Windows are read in
batches, so the memory does not grow with the length of documents.

Shapes in comments: n windows, T targets of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from jobs.evaluation.frozen import read_part
from jobs.evaluation.lost_text import lost_text_nats
from jobs.lake.manifest import FileEntry
from jobs.model.context import ContextModel
from jobs.model.language_model import LanguageModel
from jobs.model_io.folder import load_model
from jobs.tokenizer.tokenizer import Tokenizer

BATCH_TOKENS = 1 << 13
_SORTED_TOKENS = 1 << 17

Ids = npt.NDArray[np.int64]


class ScoredDocument(NamedTuple):
    """The loss of a document."""

    document: str
    """The sha256 of the text."""
    num_bytes: int
    loss: float


@dataclass(frozen=True)
class _Window:
    """A part of a document that the model reads at once."""

    document: int
    ids: Ids
    first: int
    """The index of the first target whose loss counts. The losses of earlier targets count in the previous window."""


def score_part(
    entry: FileEntry, *, set_uri: str, model_uri: str, fingerprint: str, threads: int
) -> list[ScoredDocument]:
    """Return the losses of the documents in a file of the evaluation set, in order.

    The process keeps the loaded model for later calls with the same `model_uri` and `fingerprint`.
    """
    torch.set_num_threads(threads)
    model, tokenizer = load_cached(model_uri, fingerprint)
    documents = read_part(set_uri, entry)
    losses = score_texts([each.text for each in documents], model, tokenizer)
    return [ScoredDocument(one.document, one.num_bytes, loss) for one, loss in zip(documents, losses, strict=True)]


@lru_cache(maxsize=1)
def load_cached(model_uri: str, fingerprint: str) -> tuple[LanguageModel, Tokenizer]:
    """Load a model for scoring, and keep it in memory. `fingerprint` detects that the model at the URI has changed."""
    return load_model(model_uri)


def score_texts(texts: Sequence[str], model: LanguageModel, tokenizer: Tokenizer) -> list[float]:
    """Return the loss of each text, in the unit of the model's loss. A loss may be infinite or not a number."""
    totals = np.zeros(len(texts))
    windows = _plan(texts, model, tokenizer, totals)
    for batch in _batches(windows):
        longest = max(len(window.ids) for window in batch)
        rows = np.full((len(batch), longest), tokenizer.end_of_text, np.int64)
        for row, window in zip(rows, batch, strict=True):
            row[: len(window.ids)] = window.ids  # the padding is behind all targets that count
        losses = model.loss_of_each_target(torch.from_numpy(rows)).double().numpy()  # (n, T)
        for window, of_targets in zip(batch, losses, strict=True):
            # A context model has one target for each window.
            totals[window.document] += of_targets[window.first : len(window.ids) - 1].sum()
    return totals.tolist()


def _plan(
    texts: Sequence[str], model: LanguageModel, tokenizer: Tokenizer, totals: npt.NDArray[np.float64]
) -> Iterator[_Window]:
    """Yield the windows of all documents. Add the nats for each document's lost text to its place in `totals`."""
    size: int = model.config.num_positions
    end = np.array([tokenizer.end_of_text], np.int64)
    for document, text in enumerate(texts):
        ids = tokenizer.encode(text)
        if model.loss_unit == "nats":
            totals[document] += lost_text_nats(text, ids, tokenizer)
        whole = np.concatenate([end, ids.astype(np.int64), end])
        cut = _cut_contexts if isinstance(model, ContextModel) else _cut_overlapping
        yield from (_Window(document, window, first) for window, first in cut(whole, size))


def _cut_overlapping(ids: Ids, size: int) -> Iterator[tuple[Ids, int]]:
    """Yield overlapping windows of at most `size + 1` tokens, each with the index of the first target that counts."""
    begin, done, num_targets = 0, 0, len(ids) - 1
    while done < num_targets:
        end = min(begin + size, num_targets)
        yield ids[begin : end + 1], done - begin
        done, begin = end, end - size // 2


def _cut_contexts(ids: Ids, size: int) -> Iterator[tuple[Ids, int]]:
    """Yield a window for each target: the `size` tokens before the target, and the target, whose index is 0.

    End-of-text tokens pad the beginning of the document.
    """
    padded = np.concatenate([np.full(size - 1, ids[0]), ids])
    yield from ((padded[i : i + size + 1], 0) for i in range(len(ids) - 1))


def _batches(windows: Iterator[_Window]) -> Iterator[list[_Window]]:
    """Yield windows in batches of a bounded number of tokens. The windows of a batch have similar lengths."""
    waiting, size = list[_Window](), 0
    for window in windows:
        waiting.append(window)
        size += len(window.ids)
        if size >= _SORTED_TOKENS:
            yield from _by_length(waiting)
            waiting, size = [], 0
    yield from _by_length(waiting)


def _by_length(windows: list[_Window]) -> Iterator[list[_Window]]:
    batch: list[_Window] = []
    for window in sorted(windows, key=lambda each: len(each.ids)):
        if batch and (len(batch) + 1) * len(window.ids) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
