"""What a step may ask of the place where it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from jobs.gang import Member

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs functions. They and their arguments must be picklable: they may travel to other machines."""

    name: str

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
        """Apply `function` to each item, in parallel where there are slots; results in the order of `items`.

        Raises:
            NightjarError: the one that `function` raised, for the first item that failed.
        """

    def task_threads(self, num_tasks: int) -> int:
        """How many threads each of `num_tasks` tasks of a `map` may use, so that together they use every core."""

    def gang(self, function: Callable[[Member], Result], workers: int, description: str) -> Result:
        """Run `function` as `workers` tasks at the same time and return the result of rank 0.

        Raises:
            WorkerLostError: if a task died or failed for another reason than a `NightjarError`.
            NightjarError: the one that a task raised.
        """

    def stages(self) -> list[dict[str, Any]]:
        """Figures of the work done so far, one row for each stage; the columns of ``spark.csv``.

        A description in which ``epoch 1.5`` stands gives its stages this epoch; others have 0.
        """

    def executors(self) -> list[dict[str, Any]]:
        """Figures of those that did the work, one row for each; the columns of ``executors.csv``."""
