"""``make nights``: play a month of nights, judge the gate by simulation, die in every write; print tables."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from bench.text import original
from tests.nights.month import month
from tests.nights.plan import NIGHTS
from tests.nights.tables import show_cuts, show_estimates, show_gates, show_nights, show_warm_start


def main() -> int:
    """Play the nights and print the tables; return 1 if something did not end as it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=len(NIGHTS), help="play the first ones only")
    parser.add_argument("--gates", type=int, default=200, help="number of simulated gates of each kind")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="nightjar-nights-") as name:
        folder = Path(name)
        with month(folder, original()) as played:
            dones = [played.play(number, night) for number, night in enumerate(NIGHTS[: options.nights], 1)]
            bad = show_nights(dones)
            scores = played.last_scores(dones)
            if options.nights == len(NIGHTS):
                bad += show_warm_start(*played.compare_starts())
                bad += show_estimates(dones)
        if scores is not None:
            bad += show_gates(scores, options.gates)
        bad += show_cuts(folder / "cuts")
    print(f"\n  {'all is as it must be' if not bad else f'{bad} BAD'}")  # noqa: T201 - a program of a terminal
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
