"""Run a typer application with Nightjar's exit codes, and with errors of one line instead of a traceback.

Exit codes: 0 done; 2 the input, the configuration or the command is wrong; 130 interrupted; 141 the output was closed;
1 any other error.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import shlex
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple, TextIO

import typer

from jobs.cli.attempt import MOST_CHARACTERS, Attempt, stopped_by_sigterm
from jobs.cli.output import accept_any_text
from jobs.errors import InputError, NightjarError, WorkerLostError, shorten

log = logging.getLogger("jobs")

BROKEN_PIPE = 141


class InterruptedRunError(NightjarError):
    """The user pressed Ctrl-C. The message says what was kept."""

    exit_code = 130


class Ending(NamedTuple):
    """How a command ended. `error` and `message` are set if it raised an exception."""

    exit_code: int
    error: BaseException | None = None
    message: str = ""


def run_app(app: typer.Typer, arguments: Sequence[str] | None, prog: str) -> int:
    """Run a command and return its exit code. If `arguments` is None, take the arguments of this process.

    `prog` is the name of the program in messages about a wrong command line. With --attempt, the outcome of the step is
    written to the lake, as `jobs.cli.attempt` describes.
    """
    _open_closed_streams()
    accept_any_text()
    log_to_stderr("INFO")
    words = list(sys.argv[1:] if arguments is None else arguments)
    attempt = Attempt.of(words)
    try:
        ending = _invoke(app, words, prog, stopped_by_sigterm() if attempt else nullcontext())
        if attempt is not None:
            attempt.end(ending.exit_code, ending.error, ending.message)
        _report(ending)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _give_up_if_broken(stream)
    return ending.exit_code


def _invoke(app: typer.Typer, words: list[str], prog: str, around: AbstractContextManager[None]) -> Ending:
    """Run a command in the context `around`. Catch every exception, and return it as a part of the ending."""
    try:
        with around, typer.main.get_command(app).make_context(prog, words) as context:
            context.command.invoke(context)
        sys.stdout.flush()  # here, where an error can be reported
    except typer.Exit as end:
        return Ending(end.exit_code)
    except typer.TyperException as error:
        return Ending(InputError.exit_code, error, _usage_error(error, prog))
    except (KeyboardInterrupt, typer.Abort) as error:
        return Ending(InterruptedRunError.exit_code, error, "interrupted")
    except BrokenPipeError as error:  # the reader of the output, such as `head`, has closed it
        return Ending(BROKEN_PIPE, error, str(error))
    except BaseException as error:  # noqa: BLE001 - `_report` raises the error again if it is a bug
        return Ending(error.exit_code if isinstance(error, NightjarError) else 1, error, str(error))
    return Ending(0)


def _report(ending: Ending) -> None:
    """Write the message of an error to standard error. If the error is unexpected, it is a bug: re-raise it."""
    error = ending.error
    if error is None or ending.exit_code == BROKEN_PIPE:
        return
    if isinstance(error, typer.TyperException):
        _say(ending.message)
    elif isinstance(error, (NightjarError, KeyboardInterrupt, typer.Abort)):
        log.debug("traceback", exc_info=error)
        _say(f"nightjar: {ending.message}", may_have_lines=isinstance(error, WorkerLostError))
    elif _is_expected(error):
        log.debug("traceback", exc_info=error)
        _say(f"nightjar: {type(error).__name__}: {ending.message}")
    else:
        raise error


def command_line(*words: str) -> str:
    """Return a command for the user to try next, such as ``.venv/bin/nightjar sample --model RUN``.

    The command starts the program in the same way as the user started this process.
    """
    called = sys.argv[0]
    program = shlex.quote(called) if Path(called).name == "nightjar" else "python -m jobs"
    return f"{program} {shlex.join(words)}"


def _open_closed_streams() -> None:
    """Open /dev/null in place of standard streams that the caller has closed.

    Otherwise the next files to be opened would get the file descriptors of these streams.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open until the end


def _say(message: str, *, may_have_lines: bool = False) -> None:
    """Write a message to standard error as one line of printable text. With `may_have_lines`, keep its line breaks."""
    lines = message.splitlines() if may_have_lines else [message]
    with suppress(OSError):  # standard error may be closed or full; the exit code still reports the error
        sys.stderr.writelines(f"{shorten(line, MOST_CHARACTERS)}\n" for line in lines)


def _give_up_if_broken(stream: TextIO) -> None:
    """Redirect a broken stream to /dev/null. Otherwise Python's flush at exit would print a traceback."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def log_to_stderr(level: str) -> None:
    """Write log lines to standard error: those of Nightjar from `level` upwards, those of libraries from WARNING."""
    logging.addLevelName(5, "TRACE")
    logging.addLevelName(logging.WARNING, "WARN")
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)-5s %(name)s: %(message)s", stream=sys.stderr
    )
    log.setLevel(level)


def _is_expected(error: BaseException) -> bool:
    """Return True for errors from the disk, the network or AWS. Their message is enough without a traceback."""
    from botocore.exceptions import BotoCoreError, ClientError  # takes 30 ms to import

    return isinstance(error, (OSError, ClientError, BotoCoreError))


def _usage_error(error: typer.TyperException, prog: str) -> str:
    """Return the message about a wrong command line: the command, what is wrong, and how to list the options."""
    context: typer.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context else prog
    text = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    if found := re.fullmatch(r"Got unexpected extra argument\(s\) \((.*)\)", text):
        text = f"unexpected argument: {found[1]}"
        repeated = [param.opts[0] for param in context.command.params if param.multiple] if context else []
        if repeated:
            text += f"; an option takes one value, repeat the option for several ({', '.join(repeated)})"
    return f"{path}: {text[0].lower()}{text[1:]}{'' if text[-1] == '?' else ';'} see {path} --help"


def user_name() -> str:
    """Return the user of this process and the machine as ``user@machine``, for records in the lake."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user id without a name
        return socket.gethostname()
