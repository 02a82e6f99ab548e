"""Finds a split whose share of validation windows is near `windows.valid_fraction`, or explains why there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add

import numpy as np
import numpy.typing as npt

from jobs.config import WindowsConfig
from jobs.datasets.shards import group_shards
from jobs.datasets.split import Split, SplitRule
from jobs.datasets.streams import SideTally, StreamRule, WindowShardPlan, measure_draws, plan_window_shards, tally
from jobs.datasets.tokens import TokensDataset
from jobs.datasets.windows import SIDES, Side
from jobs.engine.base import Engine
from jobs.errors import InputError, counted

log = logging.getLogger(__name__)

NEAR = 0.1
"""The tolerance for the validation share. It may differ from the wanted share by this fraction of the smaller side's
share, or by one window."""
MAX_COMPARED_DOCUMENTS = 2**20
_MAX_DRAWS = 16
_LONGEST = 0.5  # of the smaller side's text: only longer documents are cut at first, shorter ones if that fails
_MIN_SOURCES = 20
_NUM_EDGES = 2**12
_LEAST_SIZE = 8  # shorter windows are not advised, except if the setting is this small already
_SIDE_NAMES: dict[Side, str] = {"train": "training", "valid": "validation"}
_REASONS = {
    "source": "windows.split=source keeps each file whole",
    "hash": "windows.split=hash keeps equal documents on one side, and does not cut short documents",
    "tail": "windows.split=tail takes the end of each file, and does not cut short documents",
    "block": "documents are too short to be cut",
    "fixed": "windows.split=fixed keeps each document on its side",
}


@dataclass(frozen=True)
class SplitStreams:
    """The streams of both sides under a split."""

    rule: StreamRule
    tallies: dict[Side, SideTally]
    plans: dict[Side, list[WindowShardPlan]]
    note: str = ""
    """A remark for the user, such as why the share is not near the wanted share; empty if there is none."""

    def num_windows(self, side: Side) -> int:
        """Return the number of windows of a side."""
        return sum(plan.num_windows for plan in self.plans[side])

    @property
    def lacking(self) -> list[Side]:
        """The sides without a window."""
        return [side for side in SIDES if not self.plans[side]]

    @property
    def share(self) -> float:
        """The validation windows as a share of all windows."""
        return self.num_windows("valid") / max(1, sum(self.num_windows(side) for side in SIDES))

    @property
    def distance(self) -> float:
        """The difference between the share and the wanted share."""
        return abs(self.share - self.rule.split.valid_fraction)

    @property
    def is_near(self) -> bool:
        """Whether each side has windows, and the share is near the wanted share."""
        one = 1 / max(1, sum(self.num_windows(side) for side in SIDES))
        return not self.lacking and self.distance <= max(one, near(self.rule.split.valid_fraction))


def near(fraction: float) -> float:
    """Return the largest difference between a share and the wanted share `fraction` that counts as near."""
    return NEAR * min(fraction, 1 - fraction)


def find_split(tokens: TokensDataset, settings: WindowsConfig, engine: Engine) -> SplitStreams:
    """Split the documents so that validation has about `windows.valid_fraction` of the windows.

    If no split gives a share near the wanted share, the split with the nearest share is taken. Its `note` says why.

    Raises:
        InputError: if the nearest split gives a side less than half of its share, or no window.
    """
    found = _nearest(tokens, settings, engine)
    if found.is_near:
        return found
    message = f"{_explain(found)}; {_find_remedy(found, tokens, settings, engine)}"
    fraction = settings.valid_fraction
    if found.lacking or found.share < fraction / 2 or 1 - found.share < (1 - fraction) / 2:
        raise InputError(message)
    log.warning("%s", message)
    return replace(found, note=message)


def count_fixed(tokens: TokensDataset, settings: WindowsConfig, split: Split, engine: Engine) -> SplitStreams:
    """Return the streams of both sides under the fixed split of a pipeline.

    Raises:
        InputError: if a side has no window.
    """
    found = _count(tokens, make_rule(tokens, settings, split), settings.shard_tokens, engine)
    if found.lacking:
        raise InputError(f"{_explain(found)}; {_find_fixed_remedy(tokens, settings, split, engine)}")
    if settings.valid_fraction != split.valid_fraction:
        note = (
            f"windows.valid_fraction={settings.valid_fraction:g} has no effect: the split of this pipeline was decided"
            f" with {split.valid_fraction:g}"
        )
        return replace(found, note=note)
    return found if found.is_near else replace(found, note=_explain(found))


def make_rule(tokens: TokensDataset, settings: WindowsConfig, split: Split) -> StreamRule:
    """Return the rule that makes streams and windows of `tokens` under a split."""
    return StreamRule(
        tokens_uri=tokens.uri,
        split=split,
        size=settings.size,
        stride=settings.stride,
        over=settings.over,
        last=settings.last,
        vocab_size=tokens.vocab_size,
        # Selects one document in 2**k, so that the driver compares a bounded number of documents.
        hash_mask=(1 << (tokens.counts["num_documents"] // MAX_COMPARED_DOCUMENTS).bit_length()) - 1,
    )


def _nearest(tokens: TokensDataset, settings: WindowsConfig, engine: Engine) -> SplitStreams:
    """Return the streams of the first split with a share near the wanted share.

    If there is none, return the streams of the split whose share is nearest.
    """
    best: SplitStreams | None = None
    nearest = np.inf
    for split in _candidates(tokens, settings):
        for threshold, share in _thresholds(tokens, make_rule(tokens, settings, split), engine):
            distance = abs(share - settings.valid_fraction)
            if best and distance >= nearest:
                continue
            chosen = make_rule(tokens, settings, replace(split, threshold=threshold))
            found = _count(tokens, chosen, settings.shard_tokens, engine)
            if found.is_near:
                return found
            if best is None or (len(found.lacking), found.distance) < (len(best.lacking), best.distance):
                best, nearest = found, distance
        log.debug("draw %d of the split by %s does not give the wanted share", split.draw, split.method)
    assert best is not None, "there is at least one draw, with at least one threshold"
    return best


def _candidates(tokens: TokensDataset, settings: WindowsConfig) -> Iterator[SplitRule]:
    """Yield the rules to try, in order. `auto` first tries whole files if they are many and of similar size."""
    sizes = [file["text_bytes"] for file in tokens.files]
    method = settings.split
    if method == "auto":
        if len(sizes) >= _MIN_SOURCES and max(sizes) <= sum(sizes) / 10:
            yield SplitRule.of("source", settings, sum(sizes))
        method = "block"
    rule = SplitRule.of(method, settings, sum(sizes))
    if method != "source":
        yield replace(rule, longest=_LONGEST)
    # The tail is not drawn, and a single file is on one side in every draw.
    is_fixed = method == "tail" or (method == "source" and len(sizes) == 1)
    for draw in range(1 if is_fixed else _MAX_DRAWS):
        yield replace(rule, draw=draw)


def _thresholds(tokens: TokensDataset, rule: StreamRule, engine: Engine) -> list[tuple[float, float]]:
    """Return the thresholds to try, each with the validation share that it gives if gaps are not counted.

    If the wanted share itself, as a threshold, gives a share near the wanted share, it is tried first. This threshold
    has the advantage that it does not change when files are added.
    """
    fraction = rule.split.valid_fraction
    edges: npt.NDArray[np.float64] = np.concatenate(
        [np.linspace(0, fraction, _NUM_EDGES, endpoint=False), np.linspace(fraction, 1, _NUM_EDGES + 1)]
    )
    groups = group_shards(tokens.shards, edges.nbytes)
    measure = partial(measure_draws, rule=rule, edges=edges)
    units = np.sum(engine.map(measure, groups, "measure the split"), axis=0)
    total, valid = int(units.sum()), np.cumsum(units) - units
    shares = valid / max(1, total)
    least = rule.size + 1 if rule.over == "stream" else 1
    lacks_window = np.minimum(valid, total - valid) < least
    best = int(np.lexsort((np.abs(edges - fraction), np.abs(shares - fraction), lacks_window))[0])
    chosen = [_NUM_EDGES, best] if abs(shares[_NUM_EDGES] - fraction) <= near(fraction) else [best]
    return [(float(edges[place]), float(shares[place])) for place in dict.fromkeys(chosen)]


def _count(tokens: TokensDataset, rule: StreamRule, shard_tokens: int, engine: Engine) -> SplitStreams:
    """Count the tokens and documents of each side under a rule, and plan the window shards."""
    groups = group_shards(tokens.shards, len(SIDES) * 8 * tokens.vocab_size)
    count = partial(tally, rule=rule, tokenizer=tokens.read_tokenizer())
    parts = engine.map(count, groups, "count the tokens of each side")
    tallies = {side: reduce(add, (each[side] for each in parts)) for side in SIDES}
    plans = {side: plan_window_shards(side, tokens.shards, tallies[side].units, rule, shard_tokens) for side in SIDES}
    return SplitStreams(rule, tallies, plans)


def _explain(found: SplitStreams) -> str:
    """Return why the share of a split is not near the wanted share, or why a side has no window."""
    rule, tallies = found.rule, found.tallies
    if not found.lacking:
        fraction = rule.split.valid_fraction
        return (
            f"validation has {found.share:.1%} of the windows instead of windows.valid_fraction={fraction:g}:"
            f" {_REASONS[rule.split.method]}"
        )
    side = found.lacking[0]
    name, part, whole = _SIDE_NAMES[side], tallies[side], reduce(add, tallies.values())
    needed = f"a window of windows.size={rule.size} needs {rule.size + 1} tokens"
    if rule.over == "document" and len(found.lacking) == len(SIDES):
        return f"corpus too short: none of its {whole.num_skipped} documents has enough tokens ({needed})"
    if rule.over == "document":
        return (
            f"corpus too short: its {name} part has no document with enough tokens ({needed}); only"
            f" {whole.num_documents} of {whole.num_documents + whole.num_skipped} documents have enough"
        )
    return (
        f"corpus too short: its {name} part has {_size(part)}, but {needed}; the corpus has {_size(whole)},"
        f" and {_REASONS[rule.split.method]}"
    )


def _size(side: SideTally) -> str:
    return f"{counted(side.num_tokens, 'token')} in {counted(side.num_documents, 'document')}"


def _find_remedy(found: SplitStreams, tokens: TokensDataset, settings: WindowsConfig, engine: Engine) -> str:
    """Return advice for the user: the first change of settings with which the share is near the wanted share."""
    for change in _changes(found, settings):
        changed = settings.model_copy(update=change)
        other = _nearest(tokens, changed, engine)
        if not other.lacking and other.distance <= near(changed.valid_fraction):
            return f"{describe_change(change)}, which gives {other.share:.1%} of the windows to validation"
    return "give more text"


def _find_fixed_remedy(tokens: TokensDataset, settings: WindowsConfig, split: Split, engine: Engine) -> str:
    """Return advice for the user: the first change of settings that gives each side of a fixed split a window."""
    for change in window_changes(settings):
        changed = settings.model_copy(update=change)
        other = _count(tokens, make_rule(tokens, changed, split), changed.shard_tokens, engine)
        if not other.lacking:
            return f"{describe_change(change)}, which gives {other.share:.1%} of the windows to validation"
    return "give more text"


def describe_change(change: Mapping[str, object]) -> str:
    """Return a change of settings as advice for a message: ``set windows.size=16``."""
    return "set " + " and ".join(f"windows.{key}={value}" for key, value in change.items())


def window_changes(settings: WindowsConfig) -> Iterator[Mapping[str, object]]:
    """Yield changes of settings with which shorter texts have windows, those that affect the results least first."""
    if settings.over == "document":
        yield {"over": "stream"}
    size = settings.size
    while size > (_LEAST_SIZE if settings.size > _LEAST_SIZE else 1):
        size //= 2
        yield {"size": size, **({"overlap": size // 2} if settings.overlap >= size else {})}


def _changes(found: SplitStreams, settings: WindowsConfig) -> Iterator[Mapping[str, object]]:
    """Yield changes of settings that may give a better validation share, those that affect the results least first."""
    used = {settings.split, found.rule.split.method}
    yield from ({"split": method} for method in ("block", "hash") if method not in used)
    changes = list(window_changes(settings))
    if settings.over == "document":
        yield changes.pop(0)
    if 0 < (reached := round(found.share, 3)) < 1:
        yield {"valid_fraction": reached}
    yield from changes
