"""Commands in processes of their own, forked from this one, so that each takes tenths of a second; and their judge.

A child has the terminal, the environment and the limits of its case. See `sandbox` for root's children.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from jobs.errors import DamagedError, InputError
from jobs.lake import store
from tests.fuzz.registry import FaultError
from tests.fuzz.sandbox import drop_capabilities, is_harmless

PATIENCE_SECONDS = 6.0
"""An endless command is interrupted after this time."""
PROGRAMS = {"python -m jobs": "jobs.cli.main", "nightjar": "infra.cli.main"}
_PRELOADED = (
    *("torch", "pyarrow.parquet", "tensorboardX.record_writer", "safetensors.torch", "tokenizers", "botocore.session"),
    *(
        "jobs.pipeline",
        "jobs.training.worker",
        "jobs.generation.generate",
        "jobs.model_io.gguf",
        "jobs.embeddings.uses",
    ),
    *("jobs.steps.tokenize", "jobs.steps.windows", "jobs.steps.embed", "jobs.steps.train", "jobs.steps.generate"),
    *("jobs.engine.inline", "jobs.statistics.check", "jobs.cli.progress", "infra.aws.plan", "infra.aws.deploy"),
    *("infra.emr.server", "nightjar.packaging.build", "nightjar.packaging.wheelhouse"),
)
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (TRACE|DEBUG|INFO|WARN|WARNING|ERROR) ")
_MESSAGE = re.compile(r"(nightjar: |python -m jobs|nightjar[ :]|Shell .* not supported)")
_NO_FAULT = re.compile(
    r"aws-plan: |.*: (no run matches|no runs yet|no document is forgotten)|\d+ to \d+ of \d+ runs; --page "
    r"|.* in (1 folder|[\d,]+ folders) (can be|were) freed"
    r"|(1 document|[\d,]+ documents) (to forget|forgotten from now on), [\d,]+ already forgotten"
    r"|no model of this lake was trained or validated on these documents"
)
_CACHE = "nightjar-cache-"
"""The start of the name of the cache folder, which is kept for later commands."""
_RECORD = re.compile(r"(.*/)?runs/.*/steps(/|$)")
"""The outcome of an attempt of a step, which is recorded whatever it was."""
_RECORD_OR_CLAIM = re.compile(rf"{_RECORD.pattern}|(.*/)?runs(/[^/]+){{3}}(/owner\.json)?$")
"""On a full disk, the name of a run may be taken although its configuration could not be written."""
_MOST_CHARACTERS = 2500
_PIPE_BYTES = 1 << 20
_INTERRUPTED, _BROKEN_PIPE = 130, 141


@dataclass(frozen=True)
class Command:
    """A command line, and the place where it runs."""

    arguments: Sequence[str]
    program: str = "python -m jobs"
    environ: Mapping[str, str | None] = field(default_factory=dict)
    """Changes of the environment; None removes a variable."""
    stdin: bytes | None = b""
    """None closes it."""
    stdout: str = "file"
    """``file``, ``closed``, ``full`` (/dev/full) or ``gone`` (a pipe whose reader has ended)."""
    stderr: str = "file"
    encoding: str = "utf-8"
    """The encoding of the terminal."""
    most_file_bytes: int | None = None
    """A longer file cannot be written, as on a full disk."""
    is_damaged: bool = False
    """Whether the lake or the disk is at fault. A user's mistake is refused with exit code 2."""
    is_endless: bool = False
    """Whether the command may take long, by its own settings. It is interrupted then."""

    def __str__(self) -> str:
        place = {name: value for name, value in vars(self).items() if name not in ("arguments", "program")}
        usual = vars(Command(()))
        odd = {name: value for name, value in place.items() if value != usual[name]}
        return f"{self.program} {list(self.arguments)!r} {odd or ''}"


@dataclass(frozen=True)
class Outcome:
    """The end of a command."""

    code: int
    stderr: str


def check(command: Command, folder: Path, lake: Path) -> None:
    """Run a command in `folder`; raise an InputError or a DamagedError with its message, or a FaultError."""
    before, temporary = _contents(folder), set(_names(tempfile.gettempdir()))
    unfinished = set(unpublished(lake))
    outcome = run(command, folder)
    message = _message(command, outcome)
    after = _contents(folder)
    left = sorted(name for name in set(_names(tempfile.gettempdir())) - temporary if not name.startswith(_CACHE))
    left += [name for name in after.keys() - before.keys() if "/." in f"/{name}"]
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if outcome.code != 0:
        left += set(unpublished(lake)) - unfinished
        # A step that was started has reported its progress; on a full disk it cannot write statistics.
        is_started = any("/stats/" in name or "/progress/" in name for name in changed)
        if not is_started and outcome.code not in (_INTERRUPTED, _BROKEN_PIPE):
            kept = _RECORD if command.most_file_bytes is None else _RECORD_OR_CLAIM
            left += [name for name in changed if not kept.match(name)]
    if left:
        raise FaultError("half-written", f"{', '.join(left[:20])} after {outcome.code} {message}")
    if outcome.code not in (0, _INTERRUPTED, _BROKEN_PIPE):
        raise (InputError if outcome.code == InputError.exit_code else DamagedError)(message)


def run(command: Command, folder: Path) -> Outcome:
    """Run a command in a forked process."""
    preload()
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as errors, tempfile.TemporaryFile() as source:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(reader, False)
        source.write(command.stdin or b"")
        source.seek(0)
        child = os.fork()
        if not child:
            _be_child(command, folder, source.fileno(), writer)
        os.close(writer)
        try:
            status = _wait(child, command)
        finally:
            _end(child)
        text = (errors.read(_PIPE_BYTES) or b"").decode(errors="replace")
    if os.WIFSIGNALED(status):
        raise FaultError("crash", f"signal {os.WTERMSIG(status)}: {text[-3000:]}")
    return Outcome(os.WEXITSTATUS(status), text)


@cache
def preload() -> None:
    """Import what commands import, once."""
    for name in (*PROGRAMS.values(), *_PRELOADED):
        import_module(name)


def _wait(child: int, command: Command) -> int:
    started = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            _ENDED.add(child)
            return status
        elapsed = time.monotonic() - started
        if command.is_endless and elapsed > PATIENCE_SECONDS:
            os.kill(child, signal.SIGINT)
            time.sleep(0.5)
        time.sleep(min(0.05, 0.002 + elapsed / 20))


_ENDED: set[int] = set()


def _end(child: int) -> None:
    """Kill a child that the time limit interrupts."""
    if child in _ENDED:
        _ENDED.discard(child)
        return
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _be_child(command: Command, folder: Path, source: int, errors: int) -> NoReturn:
    """Become the process of a command, and end as Python ends."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not is_harmless() and any(word.startswith("/") for word in command.arguments):
            os._exit(0)  # this machine does not let root protect its files
        _open_terminal(command, source, errors)
        _enter(command, folder)
        code = _call(command)
        code = _flush(code)
    except BaseException:  # noqa: BLE001 - a forked process must not return
        traceback.print_exc(file=os.fdopen(os.dup(errors), "w", errors="backslashreplace"))
    finally:
        os._exit(code & 0xFF)


def _call(command: Command) -> int:
    try:
        main: Callable[[Sequence[str]], int] = import_module(PROGRAMS[command.program]).main
        return main(list(command.arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        return 1


def _flush(code: int) -> int:
    """Write what is buffered, as the interpreter does at its end, with its exit code if that fails."""
    try:
        if sys.stdout and not sys.stdout.closed:
            sys.stdout.flush()
    except OSError as error:
        code = 120
        with suppress(OSError, AttributeError):
            sys.stderr.write(f"Exception ignored in: {sys.stdout!r}\n{error!r}\n")
    with suppress(OSError):
        if sys.stderr:
            sys.stderr.flush()
    return code


def _open_terminal(command: Command, source: int, errors: int) -> None:
    log_handlers = logging.root.handlers
    log_handlers.clear()
    os.dup2(source, 0)
    for number, kind in ((1, command.stdout), (2, command.stderr)):
        target = _target(kind, errors if number == 2 else os.open(os.devnull, os.O_WRONLY))
        os.dup2(target, number)
    sys.stdin = _text(0, command.encoding, "surrogateescape") if command.stdin is not None else None
    sys.stdout = _text(1, command.encoding, "strict") if command.stdout != "closed" else None
    sys.stderr = _text(2, command.encoding, "backslashreplace") if command.stderr != "closed" else None
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            os.close(number)


def _target(kind: str, usual: int) -> int:
    if kind == "full":
        return os.open("/dev/full", os.O_WRONLY)
    if kind == "gone":
        reader, writer = os.pipe()
        os.close(reader)
        return writer
    return usual


def _text(number: int, encoding: str, errors: str) -> Any:
    raw = open(number, "rb" if number == 0 else "wb", closefd=False)  # noqa: SIM115 - open as long as the process
    return io.TextIOWrapper(raw, encoding, errors, line_buffering=number == 2, write_through=number == 2)


def _enter(command: Command, folder: Path) -> None:
    """Take the rights, the environment and the limits of a command."""
    store.environment_client.cache_clear()
    if command.most_file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (command.most_file_bytes,) * 2)
    drop_capabilities()
    for name in [name for name in os.environ if name.startswith("NIGHTJAR_")]:
        del os.environ[name]
    os.environ["HOME"] = str(folder)
    for name, value in command.environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.chdir(folder)


def _message(command: Command, outcome: Outcome) -> str:
    """Return the message of a refusal; raise a FaultError unless the output is what a user may expect."""
    code, lines = outcome.code, outcome.stderr.splitlines()
    if "Traceback" in outcome.stderr or "Exception ignored" in outcome.stderr or "Error in sys.exc" in outcome.stderr:
        raise FaultError("traceback", outcome.stderr[-4000:])
    is_expected = (
        code in (0, 2)
        or (code == 1 and command.is_damaged)
        or (code == _INTERRUPTED and command.is_endless)
        or (code in (1, _BROKEN_PIPE) and "gone" in (command.stdout, command.stderr))  # 1 is of the help's printer
    )
    if not is_expected:
        raise FaultError("exit code", f"{code}: {outcome.stderr[-2000:]}")
    if command.stderr != "file" or (code == 1 and command.stdout == "gone"):
        return f"exit code {code}"
    odd = [line for line in lines if not _LOG_LINE.match(line) and not (_NO_FAULT.match(line))]
    if code in (0, _BROKEN_PIPE):
        if odd:
            raise FaultError("message", f"exit code {code}: {odd[0]!r}")
        return ""
    if len(odd) != 1 or odd[0] != lines[-1] or not _MESSAGE.match(odd[0]):
        raise FaultError("message", f"exit code {code}, not one line: {odd[:5]!r}")
    if len(odd[0]) > _MOST_CHARACTERS:
        raise FaultError("message", f"{len(odd[0])} characters: {odd[0][:3000]}")
    if not odd[0].isprintable():
        raise FaultError("message", f"cannot be shown: {odd[0]!r}")
    return odd[0]


def _names(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


def _contents(folder: Path) -> dict[str, str]:
    """Return a mark for the content of every file, folder and link in a folder."""
    return dict(_marks(folder))


def _marks(folder: Path) -> Iterator[tuple[str, str]]:
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            inner = Path(path, name)
            shown = str(inner.relative_to(folder)).encode(errors="backslashreplace").decode()
            if inner.is_symlink():
                yield shown, os.fsencode(inner.readlink()).hex()
            elif inner.is_file():
                yield shown, sha256(inner.read_bytes()).hexdigest()
            else:
                yield shown, "folder" if inner.is_dir() else "other"


def unpublished(lake: Path) -> list[str]:
    """Return `half_written` of the lake, or nothing if there is no such folder."""
    from tests.fuzz.runner import half_written

    return half_written(lake) if lake.is_dir() else []
