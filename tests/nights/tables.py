"""The tables that ``make nights`` prints."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.table import show, target
from jobs.config.sections.promotion import PromotionConfig
from jobs.errors import NightjarError
from jobs.results.scores import Scores
from tests.nights.cuts import OPERATIONS, count_cuts
from tests.nights.gates import DOCUMENTS, POWER, POWER_GAIN, most_by_chance, simulate
from tests.nights.month import Done

MOST_ERROR = 0.15
_MOST = 100


def show_nights(dones: Sequence[Done]) -> int:
    """Print what happened in each night, and return how many did not end as they must."""
    header = ("night", "end", "clusters", "EMR calls", "files tokenized", "bits/byte", "s", "verdict")
    rows = [
        (
            f"{number:2} {done.night.name}",
            done.end,
            str(done.clusters),
            str(done.emr_calls),
            _text(done.new_files),
            "" if done.bits_per_byte is None else f"{done.bits_per_byte:.4f}",
            f"{done.seconds:.0f}",
            "bad" if done.problems else "good",
        )
        for number, done in enumerate(dones, 1)
    ]
    show("Nights", header, rows)
    print("\nReasons")
    for number, done in enumerate(dones, 1):
        if done.why:
            print(f"  {number:2} {done.why[: 2 * _MOST]}")
    bad = [(number, problem) for number, done in enumerate(dones, 1) for problem in done.problems]
    for number, problem in bad:
        print(f"  BAD {number}: {problem}")
    idle = [done for done in dones if done.end == "skipped"]
    print(f"  {len(dones)} nights, {len(idle)} with nothing to do: {sum(done.emr_calls for done in idle)} calls to EMR")
    return len({number for number, _ in bad})


def show_warm_start(loss: float, from_scratch: int, from_champion: int) -> int:
    """Print how many tokens it takes to reach a loss; return 1 if the champion's weights are no help."""
    show("Tokens of training to a validation loss", ("loss", "from scratch", "from the champion"),
         [(f"{loss:.3f}", f"{from_scratch:,}", f"{from_champion:,}")])  # fmt: skip
    target("tokens from the champion, as a part of those from scratch", from_champion / from_scratch, 1, at_most=True)
    return int(from_champion >= from_scratch)


def show_estimates(dones: Sequence[Done]) -> int:
    """Print the instance-seconds that were expected and metered; return 1 if they differ by too much."""
    errors, rows = [], []
    for number, done in enumerate(dones, 1):
        if done.estimated and done.metered and done.night.needs_cluster:
            errors.append(abs(done.estimated / done.metered - 1))
            cells = (f"{done.estimated:.0f}", f"{done.metered:.0f}", f"{errors[-1]:.0%}")
            rows.append((f"{number:2} {done.night.name}", *cells))
    show("Instance-seconds", ("night", "expected", "metered", "error"), rows)
    target("median error", statistics.median(errors), MOST_ERROR, at_most=True)
    return int(statistics.median(errors) > MOST_ERROR)


def show_gates(scores: Scores, number: int) -> int:
    """Print how simulated gates decide, and return how many of the promises do not hold."""
    settings = PromotionConfig()
    plain = settings.model_copy(update={"least_gain": 0.0})
    found = [simulate(scores, number, gain, each) for gain in (0.0, POWER_GAIN) for each in (settings, plain)]
    rows = [
        (
            f"better by {each.gain:.0%}" if each.gain else "equal",
            f"{each.least_gain:.1%}",
            str(each.number),
            str(each.promoted),
            f"{each.promoted / each.number:.1%}",
            f"{each.false_bounds / each.number:.1%}",
        )
        for each in found
    ]
    header = ("challenger", "least gain", "gates", "promoted", "rate", "bound above the truth")
    show(f"Gates of {DOCUMENTS} documents, drawn from {len(scores.documents)} real ones", header, rows)
    most = most_by_chance(number, settings.error_rate)
    equal = max(each.promoted for each in found if not each.gain) / number
    better = min(each.promoted for each in found if each.gain) / number
    target("equal models that are promoted", equal, most, at_most=True)
    target("better models that are promoted", better, POWER)
    return (equal > most) + (better < POWER)


def show_cuts(folder: Path) -> int:
    """Let operations die before each of their writes, and print how often; return how many do not survive that."""
    rows, bad = [], 0
    for number, prepare in enumerate(OPERATIONS):
        place = folder / str(number)
        place.mkdir(parents=True)
        try:
            rows.append((*map(str, count_cuts(prepare, place)), "good"))
        except (AssertionError, NightjarError) as error:
            bad += 1
            rows.append((prepare.__name__, str(error)[:_MOST], "bad"))
    show("Deaths between two writes, each followed by another try", ("operation", "deaths", "verdict"), rows)
    return bad


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
