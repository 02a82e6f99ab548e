"""Look at the runs of a lake: ``nightjar runs list``, ``show`` and ``compare``, and ``nightjar report RUN``.

A terminal shows tables. Elsewhere each row is a line whose cells are separated by tabs, with a header.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from jobs.cli import options
from jobs.cli.runner import command_line
from jobs.cli.tables import write_pairs, write_table
from jobs.errors import InputError
from jobs.results import SortKey

if TYPE_CHECKING:
    from jobs.lake.layout import Run
    from jobs.results.catalog import Page
    from jobs.results.summary import Summary

RunName = Annotated[
    str,
    Argument(metavar="RUN", help="Id of a run in the lake, PIPELINE/ID or PROJECT/PIPELINE/ID.", show_default=False),
]

log = logging.getLogger(__name__)

app = typer.Typer()
runs = typer.Typer(help="List, show and compare the runs of a lake.", no_args_is_help=True)
app.add_typer(runs, name="runs")


@runs.command("list")
def list_runs(
    lake: options.Lake = "lake",
    search: Annotated[
        str, Option(metavar="TEXT", help="Only runs with all these words in name, preset, corpus or cause of failure.")
    ] = "",
    status: Annotated[
        list[str] | None,
        Option(
            metavar="STATE",
            help="Only runs in this state: done, failed, running or unfinished. Repeat the option for several.",
        ),
    ] = None,
    sort: Annotated[SortKey, Option(help="Column to sort by.")] = "started",
    ascending: Annotated[bool, Option("--ascending", help="Smallest or oldest first.")] = False,
    limit: Annotated[int, Option(metavar="N", min=1, max=1000, help="Rows of a page.")] = 20,
    page: Annotated[int, Option(metavar="N", min=1, help="Number of the page.")] = 1,
) -> None:
    """List the runs of a lake, the newest first. A star marks the run of a pipeline's champion."""
    from jobs.lake.layout import Lake
    from jobs.lake.uri import to_uri
    from jobs.results.catalog import Catalog, Query
    from jobs.results.summary import Status

    if wrong := sorted(set(status or ()) - set(Status)):
        raise InputError(f"--status {wrong[0]}: not a state of a run; choose one of {', '.join(Status)}")
    statuses = frozenset(map(Status, status or Status))
    found = Catalog(Lake(to_uri(lake))).page(
        Query(search, statuses, sort, not ascending, offset=(page - 1) * limit, limit=limit)
    )
    if not found.runs:
        none = (
            "no run matches"
            if search or status or page > 1
            else "no runs yet; to start one, use: nightjar run --corpus FILE"
        )
        sys.stderr.write(f"{lake}: {none}\n")
        return
    write_table([_row_of(each, found) for each in found.runs], _LESS_NEEDED)
    if found.total > len(found.runs):
        first = (page - 1) * limit + 1
        sys.stderr.write(f"{first:,} to {first + len(found.runs) - 1:,} of {found.total:,} runs; --page shows others\n")


_LESS_NEEDED = (
    "instance time",
    "cost",
    "parameters",
    "preset",
    "tokens/s",
    "note",
    "started",
    "duration",
    "bits per byte",
)
"""Columns that a narrow terminal does not show. They are left out one by one, in this order, until the rest fits."""


def _row_of(summary: Summary, page: Page) -> dict[str, str]:
    from jobs.results.table import COLUMNS, cells
    from jobs.results.text import one_line

    texts = cells(summary)
    row = {label: texts[key] for key, label in COLUMNS.items() if key != "corpus"}
    row["run"] = f"{'* ' if page.is_champion(summary) else ''}{row['run']}"
    if texts["baseline"]:
        row["validation loss"] += f" ({texts['baseline']})"
    return {**row, "note": one_line(texts["note"] or summary.corpus or "", 60)}


@runs.command("show")
def show_run(run: RunName, lake: options.Lake = "lake") -> None:
    """Show a run: its steps, results and loss curve, and why it failed."""
    from jobs.lake import store
    from jobs.lake.uri import readable
    from jobs.results.report import read_report
    from jobs.results.rows import losses_of
    from jobs.results.text import duration, moment, sparkline, with_unit

    found = _find(run, lake)
    report = read_report(found)
    summary = report.summary
    lines = {
        "run": summary.folder,
        "state": str(summary.status),
        "started": moment(summary.started),
        "duration": "-" if summary.seconds is None else duration(summary.seconds),
        "corpus": summary.corpus or "-",
        **{tile.label: tile.text for tile in report.headline()},
        "validation loss over time": sparkline(losses_of(report.rows)),
        "cost in detail": summary.cost_note or "",
        "cause": summary.cause or "",
        "promotion": report.promotion,
        "report": readable(found.report)
        if store.exists(found.report)
        else f"none yet; to write it, use: {command_line('report', found.folder, '--lake', lake)}",
    }
    write_pairs({key: value for key, value in lines.items() if value})
    is_billed = any(step.instance_seconds is not None for step in summary.steps)
    write_table(
        [
            {
                "step": step.name,
                "state": step.state,
                "duration": "-" if step.seconds is None else duration(step.seconds),
                **(
                    {"instance time": with_unit(step.instance_seconds, "s"), "cost": with_unit(step.cost_usd, "USD")}
                    if is_billed
                    else {}
                ),
                "note": step.cause or step.progress or "",
            }
            for step in summary.steps
        ]
    )
    for problem in report.problems:
        sys.stderr.write(f"not shown: {problem}\n")


@runs.command("compare")
def compare_runs(
    names: Annotated[list[str], Argument(metavar="RUN RUN...", help="Two or more runs.", show_default=False)],
    lake: options.Lake = "lake",
) -> None:
    """Compare runs: results, validation loss curves, and the settings that differ."""
    from jobs.results.comparison import Comparison, names_of
    from jobs.results.report import read_report
    from jobs.results.rows import losses_of
    from jobs.results.text import one_line, readable, sparkline

    if len(names) < 2:
        raise InputError("runs compare: name two runs or more")
    found = [_find(name, lake) for name in names]
    comparison = Comparison(names_of(found), [read_report(run) for run in found])
    rows: dict[str, list[str]] = comparison.results()
    rows["loss over time"] = [sparkline(losses_of(report.rows), 20) for report in comparison.reports]
    rows |= {key: [one_line(readable(value), 200) for value in each] for key, each in comparison.settings().items()}
    write_table([{"": label, **dict(zip(comparison.names, values, strict=True))} for label, values in rows.items()])


@app.command("report")
def report(
    run: RunName,
    lake: options.Lake = "lake",
    output: Annotated[
        str | None,
        Option(
            metavar="FOLDER",
            help="Folder to write to: path, file:///... or s3://... Default: the folder stats of the run.",
        ),
    ] = None,
) -> None:
    """Write the report of a run in its current state: report.html, which needs no network, and its plots as images."""
    from jobs.lake import store
    from jobs.lake.layout import REPORT
    from jobs.lake.uri import join, readable, to_uri
    from jobs.results.pictures import write_pictures
    from jobs.results.report import read_report, to_html

    found = _find(run, lake)
    folder = found.stats if output is None else to_uri(output)
    if output is not None:
        store.check_writable(folder, "this folder", "--output")
    read = read_report(found)
    report = join(folder, REPORT)
    store.write_bytes(report, to_html(read))
    for uri in (report, *write_pictures(read, folder)):
        sys.stdout.write(f"{readable(uri)}\n")
    if store.read_manifest(found.model):
        place = ("--lake", lake, "--model", found.folder)
        log.info("next: %s", command_line("sample", *place, "--prompt", "The man"))


def _find(name: str, lake: str) -> Run:
    from jobs.lake.layout import Lake
    from jobs.lake.runs import find_run
    from jobs.lake.uri import to_uri

    return find_run(name, Lake(to_uri(lake)), is_started=False)
