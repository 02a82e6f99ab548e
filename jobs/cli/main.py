"""The command line: ``python -m jobs run --corpus text.txt --lake ./lake --preset tiny``.

On the cluster, the launcher calls `main`: ``spark-submit launcher.py train --config <folder of the run>/config.json``.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from jobs.cli import champion, forget, gc, history, model, replay, run, runs, sweep
from jobs.cli.runner import run_app

CONTEXT = {"help_option_names": ["-h", "--help"]}
EPILOG = "Exit codes: 0 done, 2 wrong input or configuration, 130 interrupted, 1 any other error."

app = typer.Typer(
    help="Train a language model on your text, and write text with it.",
    add_completion=False,
    context_settings=CONTEXT,
    epilog=EPILOG,
)
for commands in (run, sweep, replay, model, runs, champion, forget, gc, history):
    app.add_typer(commands.app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. If `arguments` is None, take the arguments of this process."""
    return run_app(app, arguments, "python -m jobs")
