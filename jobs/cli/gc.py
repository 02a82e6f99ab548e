"""Delete from a lake what is no longer needed: ``nightjar gc --dry-run``."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from typer import Option

from jobs.cli import options
from jobs.cli.runner import user_name
from jobs.cli.tables import write_table
from jobs.errors import counted

app = typer.Typer()


@app.command("gc")
def gc(
    lake: options.Lake = "lake",
    keep_runs: Annotated[
        int | None,
        Option(metavar="N", min=1, help="Keep the N latest runs of each pipeline. Default: all.", show_default=False),
    ] = None,
    min_days: Annotated[
        float, Option(metavar="DAYS", min=0.0, help="Keep what was changed in the last DAYS days.")
    ] = 2.0,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be deleted, and delete nothing.")] = False,
) -> None:
    """Delete what is no longer needed from a lake: old runs, datasets, checkpoints, models, packages, cluster logs.

    Nothing is deleted that a champion, an earlier champion, a kept run or a running run needs. The list of what is
    deleted is written to the folder `audit` of the lake.
    """
    from jobs.lake.gc import delete_garbage, find_garbage
    from jobs.lake.layout import Lake
    from jobs.lake.uri import relative_name, to_uri
    from jobs.results.text import with_unit

    place = Lake(to_uri(lake))
    found = find_garbage(place, time.time(), keep_runs=keep_runs, min_days=min_days)
    write_table(
        [
            {
                "kind": each.kind,
                "folder": relative_name(each.uri, place.uri),
                "files": f"{each.num_files:,}",
                "size": with_unit(each.num_bytes, "bytes"),
                "why": each.why,
            }
            for each in found
        ],
        ("files", "why"),
    )
    total = with_unit(sum(each.num_bytes for each in found), "bytes")
    if dry_run or not found:
        sys.stderr.write(f"{total} in {counted(len(found), 'folder')} can be freed; nothing was deleted\n")
        return
    freed = sum(each.num_bytes for each in delete_garbage(place, found, f"command line: {user_name()}"))
    sys.stderr.write(f"{with_unit(freed, 'bytes')} in {counted(len(found), 'folder')} were freed\n")
