"""The console command ``nightjar``. ``nightjar --install-completion`` completes commands and settings in your shell."""

from __future__ import annotations

import os
from collections.abc import Sequence

import typer

from infra.cli import aws, emr, package, prices, serve
from jobs.cli import main as jobs
from jobs.cli.runner import run_app

PROG = "nightjar"

app = typer.Typer(
    help="Train a language model on your text every night, on a cluster that exists only while it trains.",
    context_settings=jobs.CONTEXT,
    epilog=jobs.EPILOG,
)
for commands in (jobs, serve, emr, aws, package, prices):
    app.add_typer(commands.app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. If `arguments` is None, take the arguments of this process."""
    if f"_{PROG.upper()}_COMPLETE" in os.environ:  # the shell requests completions
        app(prog_name=PROG)
    return run_app(app, arguments, PROG)
