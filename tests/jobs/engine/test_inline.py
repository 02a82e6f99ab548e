"""The inline engine with real processes."""

import os
import signal
import time
from functools import partial

import pytest

from jobs.engine.inline import InlineEngine
from jobs.errors import InputError, WorkerLostError

pytestmark = pytest.mark.slow


def gather(context, rounds):
    seen = [context.all_gather(f"{context.rank}.{number}") for number in range(rounds)]
    return seen, context.world_size, os.getpid()


def fail(context, how):
    """Fail as rank 1, while rank 0 waits for it."""
    if context.rank == 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise InputError("the corpus is wrong") if how == "input" else RuntimeError("boom")
    context.all_gather("never answered")


def fail_first(context):
    """Fail as rank 1; its connection to rank 0 is closed half a second before its error is known."""
    if context.rank == 1:
        context.all_gather("my connection is closed")
        time.sleep(0.5)
        raise InputError("the corpus is wrong")
    context.all_gather("")
    raise ConnectionError("gloo: closed by peer")


def test_map_returns_results_in_the_order_of_items():
    assert InlineEngine().map(len, ["a", "", "abc"], "lengths") == [1, 0, 3]


@pytest.mark.parametrize("workers", [1, 3])
def test_all_gather_returns_the_texts_of_all_workers_by_rank(workers):
    seen, world_size, pid = InlineEngine().run_worker_group(partial(gather, rounds=3), workers, "gather")
    assert world_size == workers
    assert seen == [[f"{rank}.{number}" for rank in range(workers)] for number in range(3)]
    assert (pid == os.getpid()) == (workers == 1)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("kill", WorkerLostError, "worker 1 exited without an error message"),
        ("crash", WorkerLostError, "boom"),
        ("input", InputError, "corpus"),
    ],
)
def test_a_lost_worker_ends_the_worker_group(how, error, message):
    with pytest.raises(error, match=message):
        InlineEngine().run_worker_group(partial(fail, how=how), 2, "failing")


def test_the_error_that_caused_the_others_is_the_groups():
    with pytest.raises(InputError, match="the corpus is wrong"):
        InlineEngine().run_worker_group(fail_first, 2, "failing")
