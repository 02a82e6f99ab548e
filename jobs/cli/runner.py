"""Run a typer application with Nightjar's exit codes, and with errors of one line instead of a traceback.

Exit codes: 0 done; 2 the input, the configuration or the command is wrong; 130 interrupted; 141 the output was closed;
1 any other error.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import typer

from jobs.errors import InputError, NightjarError, WorkerLostError, shorten

log = logging.getLogger("jobs")

BROKEN_PIPE = 141
MOST_CHARACTERS = 1000


class InterruptedRunError(NightjarError):
    """The user pressed Ctrl-C. The message says what was kept."""

    exit_code = 130


def run_app(app: typer.Typer, arguments: Sequence[str] | None, prog: str) -> int:
    """Run the command that `arguments` name, by default those of this process `prog`, and return the exit code."""
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # its encoding may lack characters of names
    log_to_stderr("INFO")
    command = typer.main.get_command(app)
    try:
        with command.make_context(prog, list(sys.argv[1:] if arguments is None else arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()  # here, where an error can be reported
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        _say(_usage_error(error, prog))
        return InputError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say("nightjar: interrupted")
        return InterruptedRunError.exit_code
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        return BROKEN_PIPE
    except Exception as error:
        if not _is_expected(error):
            raise
        log.debug("traceback", exc_info=True)
        kind = "" if isinstance(error, NightjarError) else f"{type(error).__name__}: "
        _say(f"nightjar: {kind}{error}", may_have_lines=isinstance(error, WorkerLostError))
        return error.exit_code if isinstance(error, NightjarError) else 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            _give_up_if_broken(stream)
    return 0


def command_line(*words: str) -> str:
    """Return a command to try next, as this process was called: ``.venv/bin/nightjar sample --model RUN``."""
    called = sys.argv[0]
    program = shlex.quote(called) if Path(called).name == "nightjar" else "python -m jobs"
    return f"{program} {shlex.join(words)}"


def _open_closed_streams() -> None:
    """Open /dev/null in place of standard streams that the caller has closed; a file would get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open until the end


def _say(message: str, *, may_have_lines: bool = False) -> None:
    """Write a message to standard error, as one line of printable text."""
    lines = message.splitlines() if may_have_lines else [message]
    with suppress(OSError):  # standard error may be closed or full; the exit code says it
        sys.stderr.writelines(f"{shorten(line, MOST_CHARACTERS)}\n" for line in lines)


def _give_up_if_broken(stream: TextIO) -> None:
    """Send to nowhere what a stream can no longer write, or Python's last flush fails with a traceback."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


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
