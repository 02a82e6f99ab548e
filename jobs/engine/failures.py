"""Describes an error from Spark in one line: its innermost cause, and which settings of this project to change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from py4j.protocol import Py4JError

from jobs.errors import InputError, MemoryLimitError, NightjarError, WorkerLostError

_EXCEPTION = re.compile(r"^(?:Caused by: |: )?(?:\w+\.)*(\w*(?:Error|Exception): .+)$", re.MULTILINE)
MEMORY = re.compile(r"exceeding (physical|virtual) memory limits|\bOOM\b|OutOfMemory")
_TOO_LARGE = re.compile(r"Required (?:executor|AM) memory .*above the max threshold", re.DOTALL)
_WRAPPERS = re.compile(
    r"An error occurred while calling|Exception thrown in awaitResult|^Job aborted due to stage failure"
    # The cause of this exception names the program that cannot be run.
    r"|^IOException: error=\d+, "
)
_ADVICE = (
    (
        MEMORY,
        "raise spark.executor_overhead (Python's memory, now {overhead}) or spark.executor_memory (the JVM's, now"
        " {memory}), or lower spark.executor_cores, so that fewer tasks share an executor",
    ),
    (
        re.compile("external shuffle (server|service)"),
        "set spark.shuffle.service.enabled=false, or leave out spark.authenticate: this cluster's shuffle service has"
        " another version of the authentication",
    ),
    (
        _TOO_LARGE,
        "lower spark.executor_memory and spark.executor_overhead, or choose larger cluster.core_instance_types",
    ),
)


def start_error(error: Py4JError, master: str) -> NightjarError:
    """Return the error to raise if a Spark application did not start.

    If the settings need more memory than the cluster allows, return an `InputError`, after which no retry follows.
    """
    reason = innermost(error)
    message = f"Spark on {master} did not start: {with_advice(reason)}"
    return InputError(message) if _TOO_LARGE.search(reason) else NightjarError(message)


def innermost(error: Py4JError) -> str:
    """Return, in one line, a task's Python exception. If there is none, return the innermost Java exception."""
    text = str(error)
    python = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception): .+)$", text, re.MULTILINE)
    if "PythonException" in text and python:
        return str(python[-1])
    messages = _messages(getattr(error, "java_exception", None))
    telling = [each for each in messages if not _WRAPPERS.search(each)] or messages
    if telling:
        return telling[-1]
    reasons = [each for each in _EXCEPTION.findall(text) if not _WRAPPERS.search(each)]
    return str(reasons[-1]) if reasons else text.splitlines()[0]


def with_advice(reason: str, sizes: Mapping[str, str] | None = None) -> str:
    """Return `reason`. If it matches a pattern of `_ADVICE`, append which settings to change.

    `sizes` are the memory sizes of an executor, as `LossWatch.sizes`.
    """
    for pattern, advice in _ADVICE:
        if pattern.search(reason):
            known = sizes or {"memory": "too little", "overhead": "too little"}
            return f"{reason.rstrip('. ')}; {advice.format(**known)}"
    return reason


def lost_error(message: str, sizes: Mapping[str, str] | None = None) -> WorkerLostError:
    """Return the error to raise for the lost executor that `message` describes. It says which settings to change."""
    kind = MemoryLimitError if MEMORY.search(message) else WorkerLostError
    return kind(with_advice(" ".join(message.split()), sizes))


def _messages(exception: Any) -> list[str]:
    """Return the first line of the message of a Java exception and of each of its causes, the innermost last."""
    found: list[str] = []
    for _ in range(20):
        if exception is None:
            break
        try:
            message, name = exception.getMessage(), str(exception.getClass().getSimpleName())
            exception = exception.getCause()
        except (Py4JError, OSError):  # the JVM is gone
            break
        lines = str(message or "").strip().splitlines()
        found.append(f"{name}: {lines[0]}" if lines else name)
    return found
