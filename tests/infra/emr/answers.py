"""Check the answers of the embedded EMR against botocore's model, as they go over the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from infra.emr.calls import EMR_TARGET
from infra.emr.validation import operation

COMMON_ERRORS = {
    "AccessDeniedException",
    "InternalFailure",
    "ServiceUnavailable",
    "ThrottlingException",
    "ValidationException",
}
"""Errors of all operations, which the model of an operation does not list."""
TYPES: dict[str, type | tuple[type, ...]] = {
    "structure": dict,
    "list": list,
    "map": dict,
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    **dict.fromkeys(("double", "float", "timestamp"), (int, float)),
}


class CheckedAnswers:
    """WSGI middleware that checks each answer of EMR, and counts the operations that have succeeded."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self.wrong: list[str] = []
        self.succeeded: set[str] = set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if not target.startswith(EMR_TARGET):
            return self._app(environ, start_response)
        statuses: list[int] = []

        def start(status: str, *rest: Any) -> Any:
            statuses.append(int(status[:3]))
            return start_response(status, *rest)

        body = b"".join(self._app(environ, start))
        if statuses:  # a dropped connection has no answer
            self._check(target.removeprefix(EMR_TARGET), statuses[0], body)
        return [body]

    def _check(self, action: str, status: int, body: bytes) -> None:
        answer = json.loads(body) if body else None
        if status == 200:
            self.succeeded.add(action)
            self.wrong += [f"{action}: {problem}" for problem in check_answer(action, answer)]
        else:
            self.wrong += [f"{action}: {problem}" for problem in check_error(action, answer)]


def check_answer(action: str, answer: Any) -> Iterator[str]:
    shape = operation(action).output_shape
    if shape is not None:
        yield from check(answer, shape, "answer")
    elif answer:
        yield f"has the answer {answer}, but the model has none"


def check_error(action: str, answer: Any) -> Iterator[str]:
    known = {shape.name for shape in operation(action).error_shapes} | COMMON_ERRORS | {"InvalidRequestException"}
    if answer["__type"] not in known:
        yield f"unknown error {answer['__type']}"
    if not answer.get("Message"):
        yield f"{answer['__type']} has no message"


def check(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Yield what is wrong with a value: type, required and unknown members, enumerations, patterns and lengths."""
    kind, expected = shape.type_name, TYPES[shape.type_name]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "boolean"):
        yield f"{path} is {value!r}, not of type {kind}"
    elif isinstance(shape, StructureShape):
        yield from (f"{path}.{name} is not in the model" for name in value.keys() - shape.members.keys())
        yield from (f"{path}.{name} is missing" for name in set(shape.required_members) - value.keys())
        for name in value.keys() & shape.members.keys():
            yield from check(value[name], shape.members[name], f"{path}.{name}")
    elif isinstance(shape, ListShape):
        for number, item in enumerate(value):
            yield from check(item, shape.member, f"{path}[{number}]")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from check(item, shape.value, f"{path}.{key}")
    elif isinstance(shape, StringShape):
        yield from check_text(value, shape, path)


def check_text(value: str, shape: StringShape, path: str) -> Iterator[str]:
    if shape.enum and value not in shape.enum:
        yield f"{path} is {value!r}, not one of {shape.enum}"
    length, limits = len(value), shape.metadata
    if not limits.get("min", 0) <= length <= limits.get("max", length):
        yield f"{path} has {length} characters"
    pattern = re.sub(r"\\u([0-9A-F]{4})", lambda found: re.escape(chr(int(found[1], 16))), limits.get("pattern", ""))
    if pattern and "D800" not in limits["pattern"] and not re.fullmatch(pattern, value):
        yield f"{path} is {value!r}, which does not match {pattern}"
