"""The box on a run's page in which users try the run's model: a process of the job's environment continues a prompt.

Airflow's environment has no torch. So the box runs ``python -m jobs sample`` with a Python interpreter that has torch.
If there is none, the page says so. The length of texts, the time and the number of processes are limited.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Annotated
from weakref import WeakSet

from fastapi import APIRouter, Header, HTTPException
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from jobs.errors import DamagedError, LakeError, shorten
from jobs.lake.layout import MANIFEST, Run
from jobs.lake.manifest import Manifest
from jobs.lake.names import below
from jobs.lake.store import COPY_BYTES
from jobs.lake.uri import is_s3, join, local_path
from nightjar import settings
from nightjar.web.access import READ_RUNS
from nightjar.web.reading import LakeReader, Source
from nightjar.web.responses import FILE_HEADERS

NEW_TOKENS = 200
SECONDS = 90.0
"""Time limit of a process, including its start."""
MOST_PROCESSES = 2
"""Maximum number of processes of an API server at the same time. Each needs about 300 MB and, at its start, a core."""
MOST_MODEL_BYTES = 1 << 30
"""Maximum size of a model, in bytes, that is copied from S3 for a process."""
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
"""The environment variables that a process gets. It gets no other, because Airflow's variables have secrets."""

router = APIRouter(dependencies=[READ_RUNS])
_running: WeakSet[_Events] = WeakSet()


class Question(BaseModel):
    """The prompt that a user wants continued, and the options."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str = Field(max_length=4000)
    temperature: float = Field(0.8, ge=0, le=2)
    top_k: int = Field(50, ge=1, le=1_000_000)


def why_unavailable(run: Run, source: LakeReader) -> str:
    """Return why the model of a run cannot be tried here, or "" if it can."""
    if not source.store.exists(join(run.model, MANIFEST)):
        return "This run has no model, or not yet."
    python = settings.load().job_python
    if python is None and find_spec("torch") is None:
        return (
            "Airflow's environment has no torch. To try models here, set NIGHTJAR_JOB_PYTHON to the path of the Python"
            " interpreter in the job's environment on this machine."
        )
    if python is not None and not os.access(python, os.X_OK):
        return f"NIGHTJAR_JOB_PYTHON names {python}, which Airflow cannot run. Name a Python interpreter."
    return ""


@router.post("/runs/try/{folder:path}")
async def try_model(
    source: Source,
    folder: str,
    question: Question,
    sec_fetch_site: Annotated[str, Header()] = "same-origin",
) -> Response:
    """Stream the continuation of a prompt: events with ``{"text": ...}``, and ``{"error": ...}`` if it fails.

    The stream has the content type of server-sent events. Airflow's server compresses other streams, which delays them.
    """
    if sec_fetch_site not in ("same-origin", "none"):
        raise HTTPException(HTTPStatus.FORBIDDEN, "only the pages of this server may send this request")
    run = await run_in_threadpool(source.run, folder)
    if reason := await run_in_threadpool(why_unavailable, run, source):
        raise HTTPException(HTTPStatus.CONFLICT, reason)
    if len(_running) >= MOST_PROCESSES:
        detail = f"{MOST_PROCESSES} texts are being written for others; try again in some seconds"
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"Retry-After": "5"})
    return _Events(_Process(run, source, question))


@dataclass(eq=False)
class _Process:
    """A process that continues a prompt."""

    run: Run
    source: LakeReader
    question: Question

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield the text as events while the process writes it. When the generator is closed, the process is killed."""
        yield b": the process starts\n\n"  # sends the headers
        with tempfile.TemporaryDirectory(prefix="nightjar-try-") as scratch, tempfile.TemporaryFile() as log:
            try:
                model = await run_in_threadpool(_model_folder, self.run, self.source, Path(scratch))
                async with aclosing(self._texts(model, log)) as texts:
                    async for text in texts:
                        yield _event(text=text)
            except TimeoutError:
                yield _event(error=f"The text was cut off at the time limit of {SECONDS:.0f} seconds.")
            except (DamagedError, LakeError, OSError) as error:
                yield _event(error=shorten(error))

    async def _texts(self, model: str, log: IO[bytes]) -> AsyncGenerator[str, None]:
        """Yield the parts of the continuation. If the process fails, raise an OSError with the last line of its log."""
        loaded, prompt = settings.load(), self.question.prompt.encode(errors="replace").rstrip(b"\r\n")
        process = await asyncio.create_subprocess_exec(
            *(str(loaded.job_python or sys.executable), "-m", "jobs", "sample", "--model", model),
            *("--max-new-tokens", str(NEW_TOKENS), "--temperature", str(self.question.temperature)),
            *("--top-k", str(self.question.top_k), "--seed", str(secrets.randbits(31))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=loaded.package_root,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"PYTHONIOENCODING": "utf-8"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(prompt)
            process.stdin.close()
            end = asyncio.get_running_loop().time() + SECONDS
            async with asyncio.timeout_at(end):
                await process.stdout.readexactly(len(prompt))  # the output begins with it
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            held_back = ""  # a line feed that may be the last one, which the command adds
            while block := await _read(process.stdout, end):
                text = held_back + decoder.decode(block)
                held_back = "\n" * text.endswith("\n")
                yield text.removesuffix("\n")
            if await process.wait() == 0:
                return
        except asyncio.IncompleteReadError:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        log.seek(0)
        last = log.read().decode(errors="replace").strip().splitlines()[-1:]
        raise OSError(
            f"The process ended with exit code {process.returncode}: {''.join(last).removeprefix('nightjar: ')}"
        )


class _Events(StreamingResponse):
    """A response with the events of a process. The process is ended when the client disconnects."""

    def __init__(self, process: _Process) -> None:
        self._events = process.events()
        _running.add(self)
        super().__init__(self._events, media_type="text/event-stream", headers=FILE_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            _running.discard(self)
            await self._events.aclose()


async def _read(stream: asyncio.StreamReader, end: float) -> bytes:
    """Wait for bytes from the stream and return them. Raise TimeoutError at `end`, a time of the event loop."""
    async with asyncio.timeout_at(end):
        return await stream.read(4096)


def _model_folder(run: Run, source: LakeReader, scratch: Path) -> str:
    """Return the local folder with the model of a run. A model in S3 is copied to `scratch`."""
    manifest = source.store.read_manifest(run.model)
    if manifest is None:
        raise LakeError("the model was deleted")
    names = [MANIFEST, *(entry.name for entry in manifest.files)]
    if not is_s3(run.model):
        for name in names:
            if source.store.info(below(run.model, name)) is None:  # also for a link that leads out of the lake
                raise DamagedError(f"{name} is missing in the model's folder")
        return str(local_path(run.model))
    _check_size(manifest)
    for name in names:
        target = local_path(below(scratch.as_uri(), name))
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.store.open_input(below(run.model, name)) as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy, COPY_BYTES)
    return str(scratch)


def _check_size(manifest: Manifest) -> None:
    size = sum(entry.size for entry in manifest.files)
    if size > MOST_MODEL_BYTES:
        raise LakeError(f"the model has {size:,} bytes; at most {MOST_MODEL_BYTES:,} are copied for this box")


def _event(**values: str) -> bytes:
    return b"data: " + json.dumps(values).encode() + b"\n\n"
