"""The fixed split: decides once, for all runs of a pipeline, whether a document is for training or validation.

A decision is stored before it is used, and never changes. A new document gets a draw: a random number that depends
only on its text and on the pipeline's seed. The document is for validation if its draw is below a threshold that never
changes. There are three exceptions. A document that is equal or nearly equal to decided documents gets their side. New
documents that are nearly equal to each other get the side of the first of them in the order of the corpus. A document
that is nearly equal to documents of both sides is left out.

The seed is extended by a number (`FixedSplit.draw`). The first run of a pipeline tries several numbers, which give
different draws. It keeps the first number that gives a validation share near the wanted share, or else the best one.

The driver holds 16 bytes for each new document, and more only for documents with near duplicates. A task holds one
shard or one bucket: the MinHash keys in a certain range.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.config import Config, WindowsConfig
from jobs.corpus.near_keys import NUM_KEYS
from jobs.datasets.drift import measure_drift
from jobs.datasets.fixed_side_hashes import hash_dataset_sides
from jobs.datasets.fixed_sides import (
    KEYS_OF,
    LEFT_OUT,
    SIDES_OF,
    TRAIN,
    UNDECIDED,
    VALID,
    Decisions,
    Keys,
    SideCodes,
    append,
    read_decisions,
    write_decisions,
)
from jobs.datasets.links import Groups, find_links
from jobs.datasets.shards import TokenShard
from jobs.datasets.split import Segments
from jobs.datasets.split_share import describe_change, near, window_changes
from jobs.datasets.tokens import TokensDataset
from jobs.engine.base import Engine
from jobs.errors import InputError, LakeError, counted
from jobs.lake.layout import Pipeline, Run
from jobs.lake.manifest import FileEntry
from jobs.sources.fixed_split import check_text, text_rule

log = logging.getLogger(__name__)

_MAX_DRAWS = 64
_MAX_LINKED = 1 << 22  # limits draws times near duplicates: with many near duplicates, fewer draws are tried
_MAX_RACES = 32
_GROUP_DOCUMENTS = 1 << 18
_KEYS_VERSION = 1  # raise it if `near_keys` or `Texts.hashes` changes, as equal texts then get other keys


@dataclass(frozen=True)
class FixedSplit:
    """A split of token shards by the decided sides of their documents (see `jobs.datasets.split.Split`)."""

    decisions: Decisions
    valid_fraction: float
    """The share of validation that the first run of the pipeline wanted."""
    draw: int
    """The number that extends the seed. The first run of the pipeline chose it."""
    digest: str
    """One hash over the sides of all documents of the dataset in order, for the fingerprint of the windows."""
    num_left_out: int
    """The number of documents of the dataset that are nearly equal to documents of both sides."""
    method: str = "fixed"

    @property
    def threshold(self) -> float:
        """New documents whose draw is below this are for validation."""
        return self.valid_fraction

    def segments(self, shard: TokenShard) -> Segments:
        """Return one segment for each document of a shard that is not left out."""
        sides = self.decisions.sides_of(shard.hash)
        assert not (sides == UNDECIDED).any(), "all documents are decided before they are used"
        kept = np.flatnonzero(sides != LEFT_OUT)
        begin = (shard.ends - shard.lengths)[kept]
        return Segments(kept, begin, shard.ends[kept], sides[kept] == VALID, np.zeros(len(kept), np.bool_))


@dataclass(frozen=True)
class NewDocuments:
    """The undecided documents of a dataset in the order of the corpus. Equal texts are listed once."""

    hashes: Keys
    units: npt.NDArray[np.int64]
    """The number of tokens of each text, summed over all copies of the text. Windows are counted instead of tokens if
    windows lie inside documents."""
    num_copies: int
    """The number of undecided documents whose text is already listed."""


def decide_sides(run: Run, config: Config, tokens: TokensDataset, engine: Engine) -> FixedSplit:
    """Decide the sides of the documents that are new to the run's pipeline, and return the split of `tokens`.

    Raises:
        InputError: if the settings that divide text into documents have changed since the first run of the pipeline;
            in the first run, if no draw gives each side at least half of its wanted share.
    """
    pipeline = Pipeline.of(run)
    for _ in range(_MAX_RACES):
        decisions = read_decisions(pipeline)
        _check_rule(decisions, config, pipeline)
        new = _find_new(tokens, decisions, engine, config.windows)
        if not len(new.hashes):
            return _as_split(tokens, decisions, engine)
        groups = Groups(find_links(tokens, decisions, len(new.hashes) * NUM_KEYS, engine), new.hashes)
        rule = dict(decisions.rule) or _first_rule(new, groups, config, partial(_find_new, tokens, decisions, engine))
        sides = _draw_sides(new, groups, rule)
        stats = {
            "num_new_documents": len(new.hashes) + new.num_copies,
            "new_duplicate_share": (new.num_copies + groups.num_followers) / (len(new.hashes) + new.num_copies),
            "num_new_left_out_documents": int((sides == LEFT_OUT).sum()),
            **measure_drift(tokens, decisions, engine),
        }
        files = _write(tokens, decisions, new.hashes, sides, engine)
        if append(decisions, files, rule, run.folder, stats):
            log.info("fixed split: version %d has %s", decisions.number + 1, counted(len(new.hashes), "new document"))
    raise LakeError(
        f"{pipeline.split}: not updated, since each of {_MAX_RACES} attempts found that another run had just published"
        " new decisions; try again"
    )


def _check_rule(decisions: Decisions, config: Config, pipeline: Pipeline) -> None:
    if not decisions.number:
        return
    if decisions.rule["keys"] != _KEYS_VERSION:
        raise InputError(f"{decisions.folder_uri}: split decided by another version of Nightjar; use another pipeline")
    check_text(decisions.rule["text"], config, pipeline)


def _find_new(tokens: TokensDataset, decisions: Decisions, engine: Engine, settings: WindowsConfig) -> NewDocuments:
    find = partial(find_undecided, tokens_uri=tokens.uri, decisions=decisions, settings=settings)
    found = engine.map(find, tokens.shards, "find new documents")
    hashes, units = (np.concatenate(columns) for columns in zip(*found, strict=True))
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    totals = np.bincount(inverse, units, len(distinct)).astype(np.int64)
    return NewDocuments(distinct[order], totals[order], len(hashes) - len(distinct))


def find_undecided(
    entry: FileEntry, *, tokens_uri: str, decisions: Decisions, settings: WindowsConfig
) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Return the hashes of the undecided documents of a shard, and the number of tokens or windows of each."""
    shard = TokenShard.open(tokens_uri, entry)
    kept = decisions.sides_of(shard.hash) == UNDECIDED
    units = shard.lengths[kept]
    if settings.over == "document":
        units = np.maximum(0, (units - settings.size - 1) // settings.stride + 1)
    return shard.hash[kept].copy(), units


@dataclass(frozen=True)
class _Draw:
    """A number that extends the seed (see `FixedSplit.draw`), and the validation share that it gives."""

    number: int = 0
    share: float = 0.0
    distance: float = np.inf
    """The difference between the share and the wanted share; infinite if a side has no window."""

    def is_fair(self, fraction: float) -> bool:
        """Return whether each side has a window and at least half of its wanted share."""
        return self.distance < np.inf and self.share >= fraction / 2 and 1 - self.share >= (1 - fraction) / 2


def _first_rule(
    new: NewDocuments, groups: Groups, config: Config, count: Callable[[WindowsConfig], NewDocuments]
) -> dict[str, Any]:
    """Return the rule by which a pipeline will decide sides, with the best draw (see `_best_draw`).

    `count` returns the new documents with their tokens or windows under changed settings. It is called only if no draw
    is good enough, to find advice for the error message.
    """
    fraction, text = config.windows.valid_fraction, text_rule(config)
    rule = _rule_of(config.windows, text)
    best = _best_draw(new, groups, config.windows, rule)
    if not best.is_fair(fraction):
        raise InputError(
            f"windows.split=fixed: no random split gives about {fraction:.1%} of the text to validation; the text has"
            f" {len(new.hashes)} different documents of at most {text['max_piece_bytes']} bytes;"
            f" {_find_remedy(best, groups, config, count)}"
        )
    return {**rule, "draw": best.number}


def _rule_of(settings: WindowsConfig, text: dict[str, Any]) -> dict[str, Any]:
    return {"keys": _KEYS_VERSION, "seed": settings.seed, "threshold": settings.valid_fraction, "text": text}


def _best_draw(new: NewDocuments, groups: Groups, settings: WindowsConfig, rule: dict[str, Any]) -> _Draw:
    """Return the first draw whose share is near the wanted share, or else the draw with the nearest share."""
    fraction, best = settings.valid_fraction, _Draw()
    needed = settings.size + 1 if settings.over == "stream" else 1
    for draw in range(max(1, min(_MAX_DRAWS, _MAX_LINKED // (1 + len(groups.documents))))):
        sides = _draw_sides(new, groups, {**rule, "draw": draw})
        train, valid = (int(new.units[sides == side].sum()) for side in (TRAIN, VALID))
        found = valid / max(1, train + valid)
        distance = abs(found - fraction) if min(train, valid) >= needed else np.inf
        if distance < best.distance:
            best = _Draw(draw, found, distance)
        if best.distance <= near(fraction):
            break
    return best


def _find_remedy(best: _Draw, groups: Groups, config: Config, count: Callable[[WindowsConfig], NewDocuments]) -> str:
    """Return advice for the user: the first change of settings that gives a validation share near the wanted share.

    If there is none, return the first change that gives each side at least half of its wanted share.
    """
    settings, fair = config.windows, ""
    reached = round(best.share, 3)
    fractions = [{"valid_fraction": reached}] if best.distance < np.inf and 0 < reached < 1 else []
    for change in (*fractions, *window_changes(settings)):
        changed = settings.model_copy(update=change)
        found = _best_draw(count(changed), groups, changed, _rule_of(changed, text_rule(config)))
        remedy = f"{describe_change(change)}, which gives {found.share:.1%} of the text to validation"
        if found.distance <= near(changed.valid_fraction):
            return remedy
        if found.is_fair(changed.valid_fraction):
            fair = fair or remedy
    return fair or "give more text"


def _draw_sides(new: NewDocuments, groups: Groups, rule: dict[str, Any]) -> SideCodes:
    """Return the sides of new documents under a rule."""
    draws = draw_of(new.hashes, f"{rule['seed']}/{rule['draw']}")
    return groups.follow(np.where(draws < rule["threshold"], VALID, TRAIN).astype(np.uint8))


def draw_of(hashes: Keys, key: str) -> npt.NDArray[np.float64]:
    """Return a random number in [0, 1) for each document. It depends only on the document's hash and on `key`."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    mixed = hashes ^ np.uint64(int.from_bytes(digest[:8]))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the constants of SplitMix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _write(
    tokens: TokensDataset, decisions: Decisions, hashes: Keys, sides: SideCodes, engine: Engine
) -> list[FileEntry]:
    """Write the files of new decisions: one file of sides, then one file of keys for each group of shards."""
    uri = decisions.folder_uri
    entry = write_decisions(uri, SIDES_OF, hashes, sides)
    known = Decisions(uri, files=(entry,))
    groups = list(_group_by_documents(tokens.shards))
    write = partial(write_keys, tokens_uri=tokens.uri, new=known)
    return [entry, *(each for each in engine.map(write, groups, "write the keys of new documents") if each)]


def _group_by_documents(entries: Sequence[FileEntry]) -> Iterator[list[FileEntry]]:
    """Yield groups of shards. A group has a bounded number of documents, so that a task can hold their keys."""
    group: list[FileEntry] = []
    for entry in entries:
        if group and sum(each.counts["documents"] for each in (*group, entry)) > _GROUP_DOCUMENTS:
            yield group
            group = []
        group.append(entry)
    yield group


def write_keys(entries: Sequence[FileEntry], *, tokens_uri: str, new: Decisions) -> FileEntry | None:
    """Write the MinHash keys of the new documents in some shards, but not of documents that are left out.

    Return None if there are no keys to write.
    """
    keys, sides = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint8)]
    for shard in (TokenShard.open(tokens_uri, entry) for entry in entries):
        of_documents = new.sides_of(shard.hash)
        kept = of_documents <= VALID
        assert shard.near_keys is not None, "the tokenize step stores keys for this split"
        keys.append(shard.near_keys[kept].reshape(-1))
        sides.append(np.repeat(of_documents[kept], NUM_KEYS))
    if sum(map(len, keys)) == 0:
        return None
    return write_decisions(new.folder_uri, KEYS_OF, np.concatenate(keys), np.concatenate(sides))


def _as_split(tokens: TokensDataset, decisions: Decisions, engine: Engine) -> FixedSplit:
    digest, num_left_out = hash_dataset_sides(tokens, decisions, engine)
    return FixedSplit(decisions, decisions.rule["threshold"], decisions.rule["draw"], digest, num_left_out)
