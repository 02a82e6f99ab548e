"""Answers of EMR that a test changes, on a real boto3 client of the embedded EMR."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any


def refuse(
    client: Any,
    operation: str,
    code: str = "AccessDeniedException",
    status: int = 400,
    when: Callable[[str], bool] = lambda _: True,
) -> Callable[[], None]:
    """Have calls of an operation fail without effect if their body satisfies `when`. Return a function that ends it."""

    def answer(params: Mapping[str, Any], **_: Any) -> tuple[Any, dict[str, Any]] | None:
        body = params["body"]
        if not when(body.decode() if isinstance(body, bytes) else str(body)):
            return None
        error = {"Code": code, "Message": f"User is not authorized to perform {operation}"}
        return SimpleNamespace(status_code=status), {
            "Error": error,
            "ResponseMetadata": {"HTTPStatusCode": status},
        }

    event = f"before-call.emr.{operation}"
    client.meta.events.register(event, answer)
    return lambda: client.meta.events.unregister(event, answer)


def change(client: Any, operation: str, edit: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Have `edit` change the answers of an operation. Return a function that ends it."""

    def after(parsed: dict[str, Any], **_: Any) -> None:
        if "Error" not in parsed:
            edit(parsed)

    event = f"after-call.emr.{operation}"
    client.meta.events.register(event, after)
    return lambda: client.meta.events.unregister(event, after)


def say_ended(client: Any, cluster_id: str, code: str, message: str, state: str = "TERMINATED_WITH_ERRORS") -> None:
    """Have DescribeCluster say that a cluster ended with this reason."""

    def edit(parsed: dict[str, Any]) -> None:
        if parsed["Cluster"]["Id"] == cluster_id:
            reason = {"Code": code, "Message": message}
            parsed["Cluster"]["Status"] |= {"State": state, "StateChangeReason": reason}

    change(client, "DescribeCluster", edit)
