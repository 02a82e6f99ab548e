"""Simulated gates: how often chance promotes a model, on the losses of real documents under two real models.

The two models of a night's scores are made equal, or unequal by a known gain: each document takes its two losses in a
random order, so that neither model is better, and the challenger's losses are then lowered by the gain. Each gate draws
its documents anew.
"""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from jobs.config.sections.promotion import PromotionConfig
from jobs.results.gate import measure_gain, why_champion_stays
from jobs.results.scores import DocumentScore, Scores

DOCUMENTS = 500
POWER_GAIN, POWER = 0.02, 0.95


@dataclass(frozen=True)
class Gates:
    """What gates have decided on models whose true gain is known."""

    gain: float
    least_gain: float
    number: int
    promoted: int
    false_bounds: int
    """Gates whose lower bound is above the true gain."""

    @property
    def rate(self) -> float:
        """The part of the gates that promoted the challenger."""
        return self.promoted / self.number


def simulate(scores: Scores, number: int, gain: float, settings: PromotionConfig, documents: int = DOCUMENTS) -> Gates:
    """Decide on `number` pairs of models, of which the challenger is better by `gain`, on documents of the scores."""
    judge = partial(_judge, scores, gain, settings, documents)
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(judge, range(number), chunksize=4))
    return Gates(gain, settings.least_gain, number, sum(each[0] for each in found), sum(each[1] for each in found))


def _judge(scores: Scores, gain: float, settings: PromotionConfig, documents: int, seed: int) -> tuple[bool, bool]:
    """Return whether a gate promotes, and whether its lower bound is above the true gain."""
    dice = random.Random(seed)
    drawn = [_made_equal(each, gain, dice) for each in dice.choices(scores.documents, k=documents)]
    pair = replace(scores, model=f"challenger {seed}", documents=tuple(drawn))
    found = measure_gain(pair, settings.error_rate)
    return not why_champion_stays(pair, found, settings), bool(found and found.lower > gain)


def _made_equal(document: DocumentScore, gain: float, dice: random.Random) -> DocumentScore:
    losses = [document.challenger or 0.0, document.champion or 0.0]
    dice.shuffle(losses)
    return replace(document, challenger=losses[0] * (1 - gain), champion=losses[1])


def most_by_chance(number: int, rate: float) -> float:
    """Return the rate that gates with this error rate stay below in 99% of simulations of this size."""
    return rate + 2.33 * (rate * (1 - rate) / number) ** 0.5
