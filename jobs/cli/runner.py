"""Run a typer application with Nightjar's exit codes, and with errors of one line instead of a traceback.

Exit codes: 0 done; 2 the input, the configuration or the command is wrong; 130 interrupted; 141 the output was closed;
1 any other error.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from jobs.errors import InputError, NightjarError

log = logging.getLogger("jobs")

BROKEN_PIPE = 141


class InterruptedRunError(NightjarError):
    """The user pressed Ctrl-C. The message says what was kept."""

    exit_code = 130


def run_app(app: typer.Typer, arguments: Sequence[str] | None, prog: str) -> int:
    """Run the command that `arguments` name, by default those of this process `prog`, and return the exit code."""
    log_to_stderr("INFO")
    command = typer.main.get_command(app)
    try:
        with command.make_context(prog, list(sys.argv[1:] if arguments is None else arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        sys.stderr.write(f"{_usage_error(error, prog)}\n")
        return InputError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("nightjar: interrupted\n")
        return InterruptedRunError.exit_code
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's last flush fails again
        return BROKEN_PIPE
    except Exception as error:
        if not _is_expected(error):
            raise
        log.debug("traceback", exc_info=True)
        kind = "" if isinstance(error, NightjarError) else f"{type(error).__name__}: "
        sys.stderr.write(f"nightjar: {kind}{error}\n")
        return error.exit_code if isinstance(error, NightjarError) else 1
    return 0


def command_line(*words: str) -> str:
    """Return a command to try next, as this process was called: ``.venv/bin/nightjar sample --model RUN``."""
    called = sys.argv[0]
    program = shlex.quote(called) if Path(called).name == "nightjar" else "python -m jobs"
    return f"{program} {shlex.join(words)}"


def log_to_stderr(level: str) -> None:
    """Write log lines to standard error: Nightjar's from `level` on, those of libraries from warnings on."""
    logging.addLevelName(5, "TRACE")
    logging.addLevelName(logging.WARNING, "WARN")
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)-5s %(name)s: %(message)s", stream=sys.stderr
    )
    log.setLevel(level)


def _is_expected(error: Exception) -> bool:
    """Return True for errors of ours, of the disk, the network or AWS, whose message is enough without a traceback."""
    from botocore.exceptions import BotoCoreError, ClientError  # takes 30 ms to import

    return isinstance(error, (NightjarError, OSError, ClientError, BotoCoreError))


def _usage_error(error: typer.TyperException, prog: str) -> str:
    """Return the message of a wrong command line: the command, what is wrong, and where the options are listed."""
    context: typer.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context else prog
    text = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    if found := re.fullmatch(r"Got unexpected extra argument\(s\) \((.*)\)", text):
        text = f"unexpected argument: {found[1]}"
        repeated = [param.opts[0] for param in context.command.params if param.multiple] if context else []
        if repeated:
            text += f"; an option takes one value, repeat it for several ({', '.join(repeated)})"
    return f"{path}: {text[0].lower()}{text[1:]}{'' if text[-1] == '?' else ';'} see {path} --help"
