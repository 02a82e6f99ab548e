"""The comparison of several runs: their results, their curves, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.errors import InputError
from jobs.lake.layout import Run
from jobs.results import figures
from jobs.results.report import Report
from jobs.results.summary import differences
from jobs.results.svg import Curves


@dataclass(frozen=True)
class Comparison:
    """A comparison of several runs. Every list has one value for each run, in the order of `names`."""

    names: Sequence[str]
    reports: Sequence[Report]

    def results(self) -> dict[str, list[str]]:
        """Return a dict. Its keys are "state" and the labels of the results, and its values have one text for each run.

        The text is "-" for a run without this result.
        """
        tiles = [{tile.label: tile.text for tile in report.headline()} for report in self.reports]
        labels = dict.fromkeys(label for each in tiles for label in each)
        states = {"state": [str(report.summary.status) for report in self.reports]}
        return states | {label: [each.get(label, "-") for each in tiles] for label in labels}

    def settings(self) -> dict[str, list[Any]]:
        """Return the settings that are not the same in all runs: a dict from a key to one value for each run."""
        return differences([report.settings for report in self.reports])

    def figures(self) -> list[Curves]:
        """Return the plots that compare the runs. In each plot, every run has a curve."""
        return list(
            figures.of_comparison({name: each.rows for name, each in zip(self.names, self.reports, strict=True)})
        )


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return the ids of the runs as their names. If two runs have the same id, return the folders of all runs instead.

    Raises:
        InputError: if a run is given twice.
    """
    ids = [run.run_id for run in runs]
    if len(set(ids)) == len(ids):
        return ids
    folders = [run.folder for run in runs]
    if len(set(folders)) < len(folders):
        raise InputError(
            f"runs compare: {next(each for each in folders if folders.count(each) > 1)} is named twice;"
            " name each run once"
        )
    return folders
