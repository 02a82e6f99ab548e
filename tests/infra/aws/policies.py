"""A minimal evaluator of IAM policies. It does not support Deny and NotAction, which our policies do not use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Call:
    """An action on a resource, with the condition keys of its context."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict, hash=False)


def allows(documents: Iterable[Mapping[str, Any]], call: Call) -> bool:
    """Return whether a statement of the documents allows `call`."""
    statements = [statement for document in documents for statement in document["Statement"]]
    assert {statement["Effect"] for statement in statements} <= {"Allow"}
    return any(_allows(statement, call) for statement in statements)


def _allows(statement: Mapping[str, Any], call: Call) -> bool:
    actions, resources = _list(statement["Action"]), _list(statement["Resource"])
    return (
        any(fnmatchcase(call.action.lower(), action.lower()) for action in actions)
        and any(fnmatchcase(call.resource, resource) for resource in resources)
        and all(
            _holds(operator, key, _list(values), call.context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _holds(operator: str, key: str, values: list[str], context: Mapping[str, str]) -> bool:
    if key not in context:
        return operator.endswith("IfExists")
    match operator.removesuffix("IfExists"):
        case "StringEquals":
            return context[key] in values
        case "StringLike":
            return any(fnmatchcase(context[key], value) for value in values)
    raise AssertionError(f"the condition operator {operator} is not supported")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
