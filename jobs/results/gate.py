"""The gate before promotion. It decides whether a model is better than the champion, and good by itself.

Both models are scored on the same documents, so a paired bootstrap over documents measures the influence of chance. A
model replaces the champion only if its gain is large enough, and unlikely to come from the choice of documents. The
gate runs in Airflow, so it is plain Python without numpy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from jobs.config.sections.promotion import PromotionConfig
from jobs.errors import counted
from jobs.results.scores import Scores

RESAMPLES = 2000
"""Number of resampled sets of documents. The standard error of an error rate of 0.05 is then about 0.005."""
LEAST_DOCUMENTS = 20
"""Minimum value of `Gain.num_equal` for a comparison. With less, the bootstrap exceeds its error rate."""
NGRAM = 4
_UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Gain:
    """How much lower the loss of a model is than the champion's, as a share of the champion's loss."""

    value: float
    lower: float
    """Lower confidence bound of the gain. The probability that the true gain is lower is the error rate of the gate."""
    num_documents: int
    num_equal: float
    """Effective number of documents: this many documents of equal size would give an equally certain gain.

    It is at most `num_documents`.
    """


@dataclass(frozen=True)
class TextQuality:
    """The quality of the samples of a model. Shares are from 0 to 1."""

    repetition: float
    """Share of the 4-grams of tokens that repeat an earlier 4-gram of the same sample."""
    unknown: float
    """Share of the tokens that are ``<unk>``."""
    bad_prompts: tuple[str, ...] = ()
    """The canary prompts that the model continued with nothing, or with repetition."""


def measure_gain(scores: Scores, error_rate: float) -> Gain | None:
    """Return the gain over the champion. Return None if the champion has no scores.

    The lower bound comes from a bootstrap-t over documents (Efron and Tibshirani 1993, chapter 12). The deviation of
    each resampled gain is divided by the standard error of that gain. So the error rate also holds for small sets, and
    for documents of very different sizes. The random samples depend only on the models and the evaluation set, so a
    retry makes the same decision.

    Raises:
        ValueError: if a loss is missing or not finite.
    """
    pairs = [(each.champion, each.challenger) for each in scores.documents if each.champion is not None]
    if not pairs:
        return None
    before, after = [pair[0] for pair in pairs], [_finite(pair[1]) for pair in pairs]
    gain, error = _ratio(before, after)
    num_equal = math.fsum(before) ** 2 / math.fsum(loss * loss for loss in before)
    if error == 0:  # the models are the same, or there is only one document
        return Gain(gain, gain, len(pairs), num_equal)
    random = Random(_seed(scores))  # noqa: S311 - no secret
    numbers = range(len(pairs))
    deviations = []
    for _ in range(RESAMPLES):
        drawn = random.choices(numbers, k=len(pairs))
        resampled, own_error = _ratio([before[i] for i in drawn], [after[i] for i in drawn])
        if own_error > 0:
            deviations.append((resampled - gain) / own_error)
    deviations.sort()
    upper = deviations[min(len(deviations) - 1, math.ceil((1 - error_rate) * len(deviations)))]
    return Gain(gain, gain - upper * error, len(pairs), num_equal)


def _ratio(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the share by which the sum of losses falls from `before` to `after`, and the share's standard error."""
    total = math.fsum(before)
    gain = 1 - math.fsum(after) / total
    squares = math.fsum((b * (1 - gain) - a) ** 2 for b, a in zip(before, after, strict=True))
    number = len(before)
    return gain, math.sqrt(squares * number / (number - 1)) / total if number > 1 else 0.0


def _seed(scores: Scores) -> int:
    text = f"{scores.model}/{scores.champion}/{scores.evaluation_set}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _finite(loss: float | None) -> float:
    if loss is None or not math.isfinite(loss):
        raise ValueError(f"a document has the loss {loss}")
    return loss


def measure_text(rows: Iterable[Mapping[str, Any]], canaries: Iterable[str], max_repetition: float) -> TextQuality:
    """Return the quality of generated samples.

    Args:
        rows: The samples: the lines of ``generate/samples.jsonl``.
        canaries: The canary prompts.
        max_repetition: Largest share of repeated 4-grams in a good continuation of a canary prompt.
    """
    repeated = total = unknown = tokens = 0
    good, watched = set[str](), set(canaries)
    for row in rows:
        its_repeated, its_total = count_repeated(row["tokens"])
        repeated, total = repeated + its_repeated, total + its_total
        unknown += row["text"].count(_UNKNOWN)
        tokens += len(row["tokens"])
        if row["text"].strip() and its_repeated <= max_repetition * its_total:
            good.add(row["prompt"])
    bad = tuple(sorted(watched - good))
    return TextQuality(repeated / max(1, total), min(1.0, unknown / max(1, tokens)), bad)


def count_repeated(tokens: Sequence[int]) -> tuple[int, int]:
    """Return the number of 4-grams of a text that repeat an earlier 4-gram, and the number of all its 4-grams."""
    ngrams = [tuple(tokens[start : start + NGRAM]) for start in range(len(tokens) - NGRAM + 1)]
    return len(ngrams) - len(set(ngrams)), len(ngrams)


def why_unfit(
    scores: Scores, text: TextQuality, baselines: Mapping[str, tuple[float, float]], settings: PromotionConfig
) -> str:
    """Return why a model cannot become champion, whatever the current champion is. Return "" if the model can.

    Args:
        scores: The scores of the model.
        text: The quality of the model's samples.
        baselines: A dict from the name of a baseline to a pair: the model's validation loss, and the baseline's.
        settings: The settings of promotion.
    """
    for each in scores.documents:
        if each.challenger is None or not math.isfinite(each.challenger):
            return f"its loss of document {each.document[:12]} is not finite"
    for name, (loss, baseline) in baselines.items():
        if not loss < baseline:
            return f"its validation loss {loss:.4f} is not below the {name} baseline {baseline:.4f}"
    if text.repetition > settings.max_repetition:
        return (
            f"{text.repetition:.0%} of the {NGRAM}-grams of its samples repeat an earlier one, more than"
            f" promotion.max_repetition={settings.max_repetition:g}: train longer, or judge samples at a higher"
            " generate.temperature"
        )
    if text.unknown > settings.max_unknown:
        return (
            f"{text.unknown:.0%} of the tokens of its samples are {_UNKNOWN}, more than"
            f" promotion.max_unknown={settings.max_unknown:g}"
        )
    if text.bad_prompts:
        return f"it continues the canary prompt {text.bad_prompts[0]!r} with nothing, or with repetition"
    return ""


def why_champion_stays(scores: Scores, gain: Gain | None, settings: PromotionConfig) -> str:
    """Return in one line why the champion stays. Return "" if the model is better and replaces the champion."""
    if gain is None:
        return scores.not_compared or "the champion has no scores to compare with"
    documents = counted(gain.num_documents, "document")
    direction = "higher" if gain.value < 0 else "lower"
    found = f"its loss is {abs(gain.value):.2%} {direction} than the champion's on {documents}"
    if round(gain.num_equal) < LEAST_DOCUMENTS:
        weigh = "weighs" if gain.num_documents == 1 else "weigh"
        return (
            f"the evaluation set has {documents}, which {weigh} as much as {gain.num_equal:.0f} of equal size, but"
            f" a comparison needs {LEAST_DOCUMENTS}"
        )
    if gain.value < settings.least_gain or gain.value <= 0:
        return f"{found}, but a new champion needs a gain of at least promotion.least_gain={settings.least_gain:.2%}"
    if gain.lower <= 0:
        return (
            f"{found}, which may be chance: the lower bound of the gain is {gain.lower:+.2%} at"
            f" promotion.error_rate={settings.error_rate:g}"
        )
    return ""
