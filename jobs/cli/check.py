"""Checks of a run's files: ``python -m jobs check-metrics stats/metrics.csv``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobs.errors import InputError

app = typer.Typer()


@app.command("check-metrics")
def check_metrics(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A metrics.csv: path, file:///... or s3://...", show_default=False)
    ],
) -> None:
    """Check a file of training metrics (.csv) for defects, such as a loss that is no number."""
    from jobs.lake.uri import to_uri
    from jobs.report.check import check_file

    found = check_file(to_uri(file))
    for finding in found:
        sys.stdout.write(f"{file}: {finding}\n")
    if found:
        raise InputError(f"{file}: {len(found)} defect{'s' * (len(found) > 1)}")
    sys.stdout.write(f"{file}: no defects found\n")
