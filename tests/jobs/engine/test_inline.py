"""The inline engine, with real processes."""

import os
import signal
from functools import partial

import pytest

from jobs.engine.inline import InlineEngine
from jobs.errors import InputError, WorkerLostError


def gather(member, rounds):
    seen = [member.all_gather(f"{member.rank}.{number}") for number in range(rounds)]
    return seen, member.world_size, os.getpid()


def fail(member, how):
    if member.rank == 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise InputError("the corpus is wrong") if how == "input" else RuntimeError("boom")
    member.all_gather("never answered")


def test_map_keeps_order():
    assert InlineEngine().map(len, ["a", "", "abc"], "lengths") == [1, 0, 3]


@pytest.mark.parametrize("workers", [1, 3])
def test_members_hear_each_other(workers):
    seen, world_size, pid = InlineEngine().run_worker_group(partial(gather, rounds=3), workers, "gather")
    assert world_size == workers
    assert seen == [[f"{rank}.{number}" for rank in range(workers)] for number in range(3)]
    assert (pid == os.getpid()) == (workers == 1)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [("kill", WorkerLostError, "worker 1 ended"), ("crash", WorkerLostError, "boom"), ("input", InputError, "corpus")],
)
def test_a_lost_member_ends_the_gang(how, error, message):
    with pytest.raises(error, match=message):
        InlineEngine().run_worker_group(partial(fail, how=how), 2, "failing")
