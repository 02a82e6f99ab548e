"""Event files for TensorBoard, read back as records with checksums."""

import struct

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

from jobs.statistics import tensorboard
from jobs.statistics.tensorboard import event_file

STEP = {"epoch": 0.5, "loss": 3.5, "learning_rate": 0.25, "gradient_norm": 2.0, "samples": "0f"}
STEP |= {"gradient_norms": {"matrices": {"mean": 0.5, "max": 1.5}}}


def read_events(data):
    """Return the events of a file; each record is a length, its checksum, the event, and its checksum."""
    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        record, data = data[: 16 + length], data[16 + length :]
        for part, checksum in ((record[:8], record[8:12]), (record[12:-4], record[-4:])):
            crc = crc32c(part)
            assert ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32 == struct.unpack("<I", checksum)[0]
        found.append(Event.FromString(record[12:-4]))
    return found


def scalars(event):
    return {value.tag: value.simple_value for value in event.summary.value}


def test_rows_are_read_back():
    rows = [{**STEP, "step": 1, "seconds": 0.5}, {**STEP, "step": 2, "seconds": 1.0, "valid_loss": 4.0}]
    version, first, second = read_events(event_file(rows, 1000.0))
    assert version.file_version == "brain.Event:2"
    assert [(event.step, event.wall_time) for event in (first, second)] == [(1, 1000.5), (2, 1001.0)]
    assert scalars(first) == {
        "training/epoch": 0.5,
        "loss/loss": 3.5,
        "training/learning_rate": 0.25,
        "gradient/gradient_norm": 2.0,
        "gradient/matrices_mean": 0.5,
        "gradient/matrices_max": 1.5,
    }
    assert scalars(second) == scalars(first) | {"loss/valid_loss": 4.0}


def test_a_long_training_keeps_all_evaluations_and_some_other_steps(monkeypatch):
    monkeypatch.setattr(tensorboard, "MAX_STEPS", 10)
    rows = [{**STEP, "step": step, "seconds": float(step)} for step in range(1, 101)]
    rows[46]["valid_loss"] = 4.0
    steps = [event.step for event in read_events(event_file(rows, 0.0))[1:]]
    assert steps == sorted({*range(10, 101, 10), 47})


def test_without_rows_there_are_no_events():
    (version,) = read_events(event_file([], 5.0))
    assert version.wall_time == pytest.approx(5.0)
