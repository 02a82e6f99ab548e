"""The metrics of a round, from what its workers committed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.lake.store import FileEntry
from jobs.training.metrics import Row


@dataclass(frozen=True)
class RoundResult:
    """What a worker committed; `state_from` tells where it found its optimizer state, bytes what it read."""

    delta: FileEntry
    rows: list[Row]
    weights_bytes: int
    state_bytes: int
    state_from: str
    copied_bytes: int
    device: str
    dtype: str
    peak_resident_bytes: int


def merged_rows(results: Sequence[RoundResult], ended: float, elapsed: float, *, one_by_one: bool) -> list[Row]:
    """One row for each step of the round.

    The losses are parts of the global batch's mean, and add up; norms are averaged. What the round took beyond the
    steps is shared out as synchronization. The last row has the round's bytes: what was written and read of changes
    and weights (`sync_bytes`) and of optimizer state (`state_bytes`), and how many workers lost theirs.

    Args:
        results: by rank.
        ended: seconds of training when the round was over.
        elapsed: seconds of the round.
        one_by_one: workers ran one after another, so their times add up.
    """
    took = sum if one_by_one else max
    steps = list(zip(*(result.rows for result in results), strict=True))
    busy = [took(part["step_milliseconds"] for part in parts) for parts in steps]
    whole = max(sum(busy), 1000 * elapsed)
    beside = (whole - sum(busy)) / len(steps)
    rows = []
    for parts, milliseconds in zip(steps, busy, strict=True):
        whole -= milliseconds + beside
        rows.append(_merged(parts, milliseconds + beside, beside) | {"seconds": ended - max(0.0, whole) / 1000})
    deltas = 2 * sum(result.delta.size for result in results)  # written by the workers, read by the driver
    rows[-1] |= {
        "sync_bytes": deltas + sum(result.weights_bytes for result in results),
        "state_bytes": sum(result.state_bytes + result.copied_bytes for result in results),
        "states_lost": sum(result.state_from in ("copy", "none") for result in results),
    }
    return rows


def _merged(parts: Sequence[Row], milliseconds: float, sync_milliseconds: float) -> Row:
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
