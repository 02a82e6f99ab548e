"""The engine's queue: bounded, in order, and left by jobs that are cancelled, late or failed."""

import threading
import time

import pytest

from infra.serve.engine import ClosedError, Engine, Job, QueueFullError, TooLateError
from infra.serve.protocol import CompletionRequest
from infra.serve.settings import Limits
from jobs.generation.inference import to_inference
from tests.support.models import untrained_model
from tests.support.waiting import PATIENCE_SECONDS, until

LIMITS = Limits(max_batch=2, max_queue=2, max_tokens=1_000_000)


class Watched(Job):
    """A job that keeps what it is told."""

    def __init__(self, parts, num_tokens, n=1, deadline=float("inf")):
        body = f'{{"model": "m", "prompt": "the", "max_tokens": {num_tokens}, "n": {n}, "temperature": 0}}'
        self.updates, self.failures, self.ended = [], [], threading.Event()
        members = CompletionRequest.parse(body.encode()).members(*parts, LIMITS)
        super().__init__(members, self._update, self._fail, deadline)

    def _update(self, update):
        self.updates.append(update)
        if sum(each.finish is not None for each in self.updates) == len(self.members):
            self.ended.set()

    def _fail(self, error):
        self.failures.append(error)
        self.ended.set()


@pytest.fixture(scope="module")
def parts():
    model, tokenizer = untrained_model(is_endless=True)
    return to_inference(model), tokenizer


@pytest.fixture
def engine(parts):
    engine = Engine(*parts, LIMITS)
    yield engine
    engine.close(0)
    engine.join(PATIENCE_SECONDS)
    assert not engine.is_alive


def test_jobs_beyond_the_limits_are_refused_whole(engine, parts):
    long, other = Watched(parts, 1_000_000, n=2), Watched(parts, 5)
    engine.submit(long)
    until(lambda: engine.num_running == 2)
    engine.submit(other)
    with pytest.raises(QueueFullError):
        engine.submit(Watched(parts, 5, n=2))
    assert engine.num_waiting == 1
    engine.submit(Watched(parts, 5))
    assert not other.ended.is_set()
    engine.cancel(long)
    assert other.ended.wait(PATIENCE_SECONDS)
    assert other.updates[-1].num_tokens == 5


def test_a_job_ends_with_its_text_when_its_time_is_over(engine, parts):
    job = Watched(parts, 1_000_000, deadline=time.monotonic() + 0.5)
    engine.submit(job)
    assert job.ended.wait(PATIENCE_SECONDS)
    (update,) = job.updates
    assert update.finish == "length"
    assert 0 < update.num_tokens < 1_000_000
    assert len(update.text) > 5


def test_a_job_that_never_began_fails_when_its_time_is_over(engine, parts):
    engine.submit(Watched(parts, 1_000_000, n=2))
    late = Watched(parts, 5, deadline=time.monotonic() + 0.3)
    engine.submit(late)
    assert late.ended.wait(PATIENCE_SECONDS)
    assert isinstance(late.failures[0], TooLateError)
    assert (late.updates, engine.num_waiting) == ([], 0)


def test_a_closed_engine_ends_its_jobs_and_takes_no_more(engine, parts):
    running, waiting = Watched(parts, 1000, n=2), Watched(parts, 7)
    engine.submit(running)
    engine.submit(waiting)
    engine.close()
    with pytest.raises(ClosedError):
        engine.submit(Watched(parts, 1))
    engine.join(PATIENCE_SECONDS)
    assert [each.num_tokens for each in running.updates] == [1000, 1000]
    assert waiting.updates[-1].num_tokens == 7


def test_closing_with_a_limit_ends_what_runs(engine, parts):
    job = Watched(parts, 1_000_000)
    engine.submit(job)
    until(lambda: engine.num_running == 1)
    engine.close(0.3)
    engine.join(PATIENCE_SECONDS)
    assert job.updates[-1].finish == "length"


def test_a_batch_that_fails_fails_its_jobs_alone(parts, caplog):
    """The first job makes the model raise an error, as a machine without memory would."""
    model, tokenizer = parts

    class Failing:
        config, embedding, num_positions = model.config, model.embedding, model.num_positions
        num_streams = 0

        def stream(self):
            self.num_streams += 1
            return model.stream() if self.num_streams > 1 else self

        def join(self, contexts):
            raise RuntimeError("out of memory")

    engine = Engine(Failing(), tokenizer, LIMITS)
    first, second = Watched(parts, 5, n=3), Watched(parts, 5)
    engine.submit(first)
    assert first.ended.wait(PATIENCE_SECONDS)
    engine.submit(second)
    assert second.ended.wait(PATIENCE_SECONDS)
    assert str(first.failures[0]) == "out of memory"
    assert (len(first.failures), first.updates) == (1, [])
    assert second.updates[-1].num_tokens == 5
    assert "its 2 continuations are abandoned" in caplog.text
    engine.close(0)
    engine.join(PATIENCE_SECONDS)
    assert engine.num_waiting == 0
