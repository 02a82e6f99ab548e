"""The curves of a training as an event file, which TensorBoard opens: ``tensorboard --logdir <run>/train/tensorboard``.

Scalars alone, one event for each step: what a step's row tells, with what an evaluation adds to some. Made anew from
all rows each time, so steps that were repeated after a resume stand in it once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

Row = dict[str, Any]
NAME = "events.out.tfevents.nightjar"  # TensorBoard reads files with this middle part in their names
MAX_STEPS = 20_000  # of a longer training some are left out: TensorBoard shows about a thousand of a curve


def event_file(rows: Sequence[Row], started: float) -> bytes:
    """The bytes of an event file.

    Args:
        rows: Metrics by step (see `jobs.training.metrics`).
        started: When training began, in seconds since 1970.
    """
    every = -(-len(rows) // MAX_STEPS)
    chosen = [row for number, row in enumerate(rows, 1) if number % every == 0 or "valid_loss" in row]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        writer = RecordWriter(str(path))
        for event in _events(chosen, started):
            writer.write(event.SerializeToString())
        writer.close()
        return path.read_bytes()


def _events(rows: Iterable[Row], started: float) -> Iterator[Event]:
    yield Event(wall_time=started, file_version="brain.Event:2")
    for row in rows:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(row)]
        yield Event(wall_time=started + row["seconds"], step=row["step"], summary=Summary(value=values))


def scalars(row: Row) -> Iterator[tuple[str, float]]:
    """The numbers of a row under names of TensorBoard: ``loss/valid_loss``, ``gradient/hidden_max``."""
    for key, value in row.items():
        if key == "gradient_norms":
            yield from (
                (f"gradient/{group}_{of}", norm) for group, norms in value.items() for of, norm in norms.items()
            )
        elif isinstance(value, int | float) and key not in ("step", "seconds"):
            yield f"{_family(key)}/{key}", value


def _family(key: str) -> str:
    if key in ("perplexity", "bits_per_byte") or key.endswith("loss"):
        return "loss"
    if key.endswith("accuracy"):
        return "accuracy"
    return "gradient" if key.startswith("gradient") else "training"
