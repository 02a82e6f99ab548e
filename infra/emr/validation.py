"""Check requests against botocore's description of the EMR API, as EMR itself does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

from infra.emr.answers import ApiError


@cache
def service_model() -> ServiceModel:
    """Return botocore's description of the EMR API."""
    return ServiceModel(Loader().load_service_model("emr", "service-2"), "emr")


def operation(name: str) -> OperationModel:
    """Return the description of one operation of the EMR API."""
    return service_model().operation_model(name)


def check_request(name: str, request: dict[str, Any]) -> None:
    """Raise an `ApiError` if a request lacks required members, or has members or values that are not allowed."""
    shape = operation(name).input_shape
    if shape is None:
        return
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ApiError(report.generate_report().replace("\n", "; "))
    for path, value, allowed in wrong_choices(request, shape):
        raise ApiError(
            f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint:"
            f" Member must satisfy enum value set: [{', '.join(allowed)}]"
        )


def wrong_choices(value: Any, shape: Shape, path: str = "") -> Iterator[tuple[str, Any, list[str]]]:
    """Yield each string in `value` that `shape` does not allow: its path, the string, and the allowed strings."""
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from wrong_choices(value[name], member, f"{path}.{name}".lstrip("."))
    elif isinstance(shape, ListShape):
        for number, item in enumerate(value):
            yield from wrong_choices(item, shape.member, f"{path}[{number}]")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from wrong_choices(item, shape.value, f"{path}.{key}")
    elif isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        yield path, value, shape.enum
