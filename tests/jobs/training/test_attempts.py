"""Containers that are killed for their memory are not started again and again in the same size."""

import pytest

from jobs.config import resolve
from jobs.errors import MemoryLimitError, WorkerLostError
from jobs.lake.layout import Lake
from jobs.training.attempts import Attempts

KILLED = MemoryLimitError("executor 1 was lost: Container killed by YARN; raise spark.executor_overhead")


def test_the_second_loss_by_memory_ends_the_attempts(tmp_path):
    said: list[str] = []
    attempts = Attempts(Lake(tmp_path.as_uri()).run("r"), resolve("none", "tiny", {}).train, said.append)
    attempts.lost(KILLED)
    assert "once more in containers of the same size, although one used too much memory and was killed" in said[0]
    attempts.lost(WorkerLostError("a worker received SIGTERM"))
    assert "same size" not in said[1]
    with pytest.raises(MemoryLimitError, match=r"in 2 attempts.*Container killed by YARN; raise spark\.executor_ov"):
        attempts.lost(KILLED)
