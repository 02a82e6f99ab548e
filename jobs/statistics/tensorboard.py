"""The metrics of training as an event file: ``tensorboard --logdir <run>/train/tensorboard`` shows its curves.

The file is rewritten from all rows each time, so a step that was repeated after a resume appears once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from jobs.metrics import metrics_of
from jobs.metrics.columns import StepRow

NAME = "events.out.tfevents.nightjar"
"""TensorBoard reads files with ``tfevents`` in their name."""
MAX_STEPS = 20_000
"""With more steps, only every n-th step and the evaluated steps are written: TensorBoard shows about 1000 points."""


def event_file(rows: Sequence[StepRow], started: float) -> bytes:
    """Return an event file with an event for each row (see `MAX_STEPS`). `started` is in seconds since 1970."""
    every = -(-len(rows) // MAX_STEPS)
    chosen = [row for number, row in enumerate(rows, 1) if number % every == 0 or "valid_loss" in row]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        writer = RecordWriter(str(path))
        for event in _events(chosen, started):
            writer.write(event.SerializeToString())
        writer.close()
        return path.read_bytes()


def _events(rows: Iterable[StepRow], started: float) -> Iterator[Event]:
    yield Event(wall_time=started, file_version="brain.Event:2")
    for row in rows:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(row)]
        yield Event(wall_time=started + row["seconds"], step=row["step"], summary=Summary(value=values))


def scalars(row: StepRow) -> Iterator[tuple[str, float]]:
    """Yield the tag and the value of each number of a row, with tags such as ``loss/valid_loss``."""
    charts = {name: metric.chart for name, metric in metrics_of(StepRow).items() if metric.chart}
    for key, value in row.items():
        if isinstance(value, dict):
            for group, norms in value.items():
                yield from ((f"{charts[key]}/{group}_{statistic}", norm) for statistic, norm in norms.items())
        elif key in charts and isinstance(value, int | float):
            yield f"{charts[key]}/{key}", value
