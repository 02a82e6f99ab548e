"""Leave documents out of every corpus from now on: ``nightjar forget letters.txt --why "asked by the author"``."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from jobs.cli import options
from jobs.cli.runner import user_name
from jobs.cli.tables import write_table
from jobs.errors import InputError, counted, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.lake.layout import Lake

app = typer.Typer()

_SHOWN_CHARACTERS = 60


@app.command("forget")
def forget(
    texts: Annotated[
        list[str] | None,
        Argument(
            metavar="[TEXT]...",
            help="File, folder or pattern of files with the documents to forget. Without TEXT and --hash, the documents"
            " that are already forgotten are listed.",
            show_default=False,
        ),
    ] = None,
    hashes: Annotated[
        list[str] | None,
        Option("--hash", metavar="HASH", help="Hash of a document, as this command prints it. May be repeated."),
    ] = None,
    why: Annotated[str, Option(metavar="TEXT", help="The reason, which is recorded.", show_default=False)] = "",
    like: Annotated[
        str,
        Option(
            metavar="RUN",
            help="Run whose settings are used to divide TEXT into documents. `champion` and `champion:<pipeline>` name"
            " the run of a champion.",
        ),
    ] = "champion",
    lake: options.Lake = "lake",
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be forgotten, and forget nothing.")] = False,
) -> None:
    """Leave documents out of every corpus of a lake from now on, and list the models that were trained on them.

    A document is identified by the hash of its text, whatever file contains it. Models that were trained on a document
    keep what they learned from it: train them again from random weights. The tokens of a document stay in the datasets
    of earlier runs. `nightjar gc` deletes these datasets once no kept run uses them.
    """
    from jobs.lake import forgotten
    from jobs.lake.layout import Lake
    from jobs.lake.runs import all_runs
    from jobs.lake.uri import to_uri

    place = Lake(to_uri(lake))
    if not texts and not hashes:
        _list(place)
        return
    if not why and not dry_run:
        raise InputError("--why: missing; give the reason for forgetting the documents (it is recorded)")
    if not any(True for _ in all_runs(place)):
        raise InputError(f"{place.uri}: no run in this lake, so no document to forget; check --lake")
    read = _read(texts, like, place) if texts else {}
    wanted = [*map(_parse, hashes or ()), *read]
    if dry_run:
        new = forgotten.without_known(forgotten.read_forgotten(place), wanted)
    else:
        new = [each.hash for each in forgotten.forget(place, wanted, f"command line: {user_name()}", why)]
    done = "to forget" if dry_run else "forgotten from now on"
    known = len(set(wanted)) - len(new)
    sys.stderr.write(f"{counted(len(new), 'document')} {done}, {known:,} already forgotten\n")
    if dry_run:
        write_table([{"document": forgotten.to_hex(each), "begins": read.get(each, "-")} for each in new])
    _report(place, wanted)


def _parse(text: str) -> int:
    if not re.fullmatch("[0-9a-fA-F]{16}", text):
        raise InputError(f"--hash {text}: not the hash of a document; give its 16 hexadecimal digits")
    return int(text, 16)


def _read(texts: Sequence[str], like: str, lake: Lake) -> dict[int, str]:
    """Return the first characters of each document in the files `texts`, in a dict with the documents' hashes as keys.

    The files are divided into documents with the settings of the run `like`.
    """
    from jobs.config import Config
    from jobs.corpus.byte_ranges import ByteRange
    from jobs.corpus.check import check_corpus
    from jobs.corpus.reading import read_documents
    from jobs.engine.inline import InlineEngine
    from jobs.lake import store
    from jobs.lake.champion import champions_pipeline, no_champion_error, read_champion
    from jobs.lake.layout import Run
    from jobs.lake.runs import find_run
    from jobs.sources.listing import list_corpus

    if pipeline := champions_pipeline(like, lake):
        champion, _ = read_champion(pipeline)
        if champion is None:
            raise no_champion_error(pipeline, "name a run with --like")
        run = Run(lake.uri, champion.run_folder)
    else:
        run = find_run(like, lake)
    settings = Config.from_json(store.read_bytes(run.config).decode(), run.config).text_settings
    sources = [each.source for each in check_corpus(list_corpus("\n".join(texts)), settings, InlineEngine())]
    batches = (batch for source in sources for batch in read_documents(ByteRange.whole(source), settings))
    return {
        each: shorten(batch.texts[number].decode(errors="replace"), _SHOWN_CHARACTERS)
        for batch in batches
        for number, each in enumerate(batch.texts.hashes().tolist())
    }


def _list(lake: Lake) -> None:
    from jobs.lake.forgotten import read_forgotten, to_hex

    found = read_forgotten(lake)
    rows = [{"document": to_hex(each.hash), "since": each.time, "by": each.by, "why": each.why} for each in found]
    write_table(rows, ("by", "since"))
    if not rows:
        sys.stderr.write(f"{lake.uri}: no document is forgotten\n")


def _report(lake: Lake, hashes: Sequence[int]) -> None:
    """Print the models that were trained or validated on the documents with these hashes."""
    from jobs.model_io.document_use import find_document_uses

    rows = [
        {
            "model of run": each.run.folder,
            "champion of": ", ".join(each.champion_of) or "-",
            "has": each.saw,
            "through run": each.through or "-",
        }
        for each in find_document_uses(lake, hashes)
    ]
    write_table(rows, ("through run",))
    if not rows:
        sys.stderr.write("no model of this lake was trained or validated on these documents\n")
