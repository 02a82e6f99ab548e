"""A round of local steps: its plan, the results that its workers commit, and the metrics of its steps.

A worker's result is in ``<run>/train/rounds/<round>/<rank>/``: its weight delta, in some rounds a copy of its
optimizer state, and a manifest with the fields of `RoundResult`. A delta is stored as float32, bfloat16 or int8.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.layout import Run
from jobs.lake.manifest import FileEntry
from jobs.lake.uri import join
from jobs.metrics.columns import BatchRow, RoundCost
from jobs.training.machine import Machine

DELTA, STATE = "delta", "state"
_SCALE = "/scale"


class RoundRow(BatchRow, RoundCost):
    """The metrics of one step of a round, over all workers."""


@dataclass(frozen=True)
class RoundPlan:
    """The plan of a round, the same for all its workers."""

    training_id: str
    """The name under which machines cache the optimizer states of this training."""
    first_step: int
    last_step: int
    """Number of steps that are done when the round ends. `first_step` is their number when the round begins."""
    workers: int
    weights_hash: str
    """Hash of the weights that the round starts from."""
    seconds: float
    """Training time before the round."""
    seconds_per_step: float
    """Estimated duration of a step, from which the learning rate of each step is computed."""
    threads: int
    copied_round: str | None
    """Name of the latest round that copied the optimizer states to the lake. None if no round has copied them."""
    copies_state: bool
    """True if this round copies the optimizer states to the lake."""

    @property
    def name(self) -> str:
        """Name of the round's folder."""
        return f"{self.first_step:08d}-{self.last_step:08d}-{self.workers:04d}-{self.weights_hash[:12]}"

    def seconds_at(self, step: int) -> float:
        """Return the planned training time before `step`."""
        return self.seconds + (step - self.first_step) * self.seconds_per_step


@dataclass(frozen=True)
class RoundResult:
    """The result of one worker in a round."""

    delta: FileEntry
    """File of the weight delta."""
    rows: list[BatchRow]
    weights_bytes: int
    """Bytes of weights read from the lake."""
    state_bytes: int
    """Bytes of optimizer state read from the lake."""
    state_from: str
    """Where the optimizer state was found: ``local``, ``checkpoint``, ``copy`` or ``none``; ``start`` at step 0."""
    copied_bytes: int
    """Bytes of optimizer state written to the lake."""
    device: str
    dtype: str
    peak_resident_bytes: int
    machine: Machine | None = None
    """The worker's machine; None if an earlier version wrote the result."""

    def to_counts(self) -> dict[str, Any]:
        """Return the fields that the manifest stores in addition to the list of files."""
        return {name: value for name, value in asdict(self).items() if name != "delta"}


def result_folder(run: Run, name: str, rank: int) -> str:
    """Return the folder of a worker's result in the round `name`."""
    return join(run.rounds, name, f"{rank:04d}")


def read_results(run: Run, name: str) -> list[RoundResult]:
    """Return the results of all workers in the round `name`, in the order of their ranks."""
    results = []
    for rank in range(int(name.split("-")[2])):
        folder = result_folder(run, name, rank)
        manifest = store.read_manifest(folder)
        if manifest is None:
            raise DamagedError(f"{folder}: the result of worker {rank} is missing; run the step again")
        results.append(RoundResult(manifest.entries(DELTA)[0], **manifest.counts))
    return results


def encode(deltas: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Convert weight deltas to the tensors that are stored. With `int8`, each row (the last dimension) has one scale.

    The error of a number is then at most half a scale, which is 1/254 of the largest absolute number in its row.
    """
    if dtype != "int8":
        return {name: delta.to(getattr(torch, dtype)).contiguous() for name, delta in deltas.items()}
    encoded: dict[str, Tensor] = {}
    for name, delta in deltas.items():
        scale = delta.abs().amax(dim=-1, keepdim=True) / 127
        scaled = delta / torch.where(scale > 0, scale, torch.ones_like(scale))
        encoded[name], encoded[name + _SCALE] = scaled.round().to(torch.int8), scale.float()
    return encoded


def decode(name: str, read: Callable[[str], Tensor]) -> Tensor:
    """Return the weight delta of the parameter `name` as float32. `read` returns the stored tensor with a name."""
    stored = read(name)
    return stored.float() if stored.dtype != torch.int8 else stored * read(name + _SCALE)


def merge_rows(results: Sequence[RoundResult], ended: float, elapsed: float, *, one_by_one: bool) -> list[RoundRow]:
    """Merge the workers' metrics into one row for each step of a round.

    The round took `elapsed` seconds, and ended when training had taken `ended` seconds. The workers' losses are parts
    of the global batch's mean loss and are summed. Gradient norms are averaged. The seconds of `elapsed` that no step
    took are divided among the steps as synchronization. If the workers ran `one_by_one`, their times are summed.

    The last row has the bytes of the whole round, written and read: deltas and weights (`sync_bytes`) and optimizer
    states (`state_bytes`). It also counts the workers that did not find their latest optimizer state (`states_lost`).
    """
    combine = sum if one_by_one else max
    steps = list(zip(*(result.rows for result in results), strict=True))
    durations = [combine(part["step_milliseconds"] for part in parts) for parts in steps]
    remaining = max(sum(durations), 1000 * elapsed)
    overhead = (remaining - sum(durations)) / len(steps)
    rows = []
    for parts, duration in zip(steps, durations, strict=True):
        remaining -= duration + overhead
        seconds = ended - max(0.0, remaining) / 1000
        rows.append(_merge_step(parts, seconds, duration + overhead, overhead))
    delta_bytes = 2 * sum(result.delta.size for result in results)  # written by the workers, read by the driver
    rows[-1] |= {
        "sync_bytes": delta_bytes + sum(result.weights_bytes for result in results),
        "state_bytes": sum(result.state_bytes + result.copied_bytes for result in results),
        "states_lost": sum(result.state_from in ("copy", "none") for result in results),
    }
    return rows


def _merge_step(parts: Sequence[BatchRow], seconds: float, milliseconds: float, sync_milliseconds: float) -> RoundRow:
    num_tokens = sum(part["tokens_per_second"] * part["step_milliseconds"] / 1000 for part in parts)
    return {
        "loss": sum(part["loss"] for part in parts),
        "learning_rate": parts[0]["learning_rate"],
        "gradient_norm": statistics.fmean(part["gradient_norm"] for part in parts),
        "gradient_norms": {
            name: {
                "mean": statistics.fmean(part["gradient_norms"][name]["mean"] for part in parts),
                "max": max(part["gradient_norms"][name]["max"] for part in parts),
            }
            for name in parts[0]["gradient_norms"]
        },
        "seconds": seconds,
        "step_milliseconds": milliseconds,
        "sync_milliseconds": sync_milliseconds,
        "tokens_per_second": 1000 * num_tokens / milliseconds,
        "resident_bytes": max(part["resident_bytes"] for part in parts),
        "gpu_bytes": max(part["gpu_bytes"] for part in parts),
        "cpu_load": parts[0]["cpu_load"],
        "samples": parts[0]["samples"],
        "sync_bytes": 0,
        "state_bytes": 0,
        "states_lost": 0,
    }
