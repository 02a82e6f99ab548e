"""Make a run's model again, and compare the weights: ``nightjar replay RUN``."""

from __future__ import annotations

import logging
import sys
import time
from typing import Annotated

import typer
from typer import Option

from jobs.cli import options
from jobs.cli.run import held_run, local_master, opened_engine
from jobs.cli.runner import command_line
from jobs.cli.runs import RunName

app = typer.Typer()
log = logging.getLogger("jobs")


@app.command("replay")
def replay(
    run: RunName,
    lake: options.Lake = "lake",
    run_id: Annotated[
        str | None,
        Option(metavar="NAME", help="Name of the new run. An earlier replay is continued. Default: replay-<time>."),
    ] = None,
    engine: Annotated[options.EngineName | None, Option(help="Default: the engine that trained the model.")] = None,
    master: options.Master = None,
) -> None:
    """Make the model of a run again in a new run, and report whether the weights are equal bit for bit.

    The new run uses the settings, the starting model and the tokenizer that the old run recorded. Where a time limit or
    a budget decided something in the old run, such as the last step, the new run repeats the recorded decision. If the
    weights differ, the exit code is 1, and the output names the first difference.
    """
    from jobs.cli.progress import show_progress
    from jobs.engine.inline import InlineEngine
    from jobs.lake.identity import LOCAL, PROJECT
    from jobs.lake.layout import Lake
    from jobs.lake.runs import find_run
    from jobs.lake.uri import to_uri
    from jobs.pipeline import begin_run, run_all
    from jobs.training.replay import Replay

    home = Lake(to_uri(lake))
    source = find_run(run, home, is_started=False)
    found = Replay.of(source)
    # The new run has the same pipeline as the old one, because the pipeline's fixed split divides the documents.
    new_id = run_id or time.strftime("replay-%Y%m%d-%H%M%S")
    new = home.run(new_id, source.pipeline or LOCAL, source.project or PROJECT)
    config, chosen = found.config, engine or found.engine
    found.check_corpus(InlineEngine())  # not on Spark, which would write an event log even if the replay is refused
    for difference in found.warnings(chosen):
        log.warning("the weights may differ: %s", difference)
    found.prepare(new)
    with opened_engine(chosen, config, master, local=local_master(config), events=new.spark_events) as opened:
        begin_run(new, config, chosen)
        with held_run(new):
            run_all(new, opened, lambda step: show_progress(new, step, config.log_level))
    is_equal, line = found.verdict(new)
    sys.stdout.write(f"{line}\n")
    log.info("next: %s", command_line("runs", "compare", source.folder, new.folder, "--lake", lake))
    if not is_equal:
        raise typer.Exit(1)
