"""The thread that generates the text of all requests in one batch.

A new request does not wait for the end of the others: it joins the batch between two decoding steps. The engine does
not depend on HTTP. Its thread calls `on_update` and `on_failure` of each job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from infra.serve.settings import Limits
from jobs.generation.batch import Batch, Member
from jobs.generation.inference import InferenceModel
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

Finish = Literal["stop", "length"]


class QueueFullError(Exception):
    """The queue has no room for the continuations of a job."""


class ClosedError(Exception):
    """The engine takes no more jobs, because another engine has replaced it or the server stops."""


class TooLateError(Exception):
    """A job reached its deadline before all its continuations got a place in the batch."""


@dataclass(frozen=True)
class Update:
    """The state of a continuation after one of its tokens was generated."""

    index: int
    """Number of the continuation in its job, from 0."""
    text: str
    """The part of the text that later tokens cannot change."""
    num_tokens: int
    finish: Finish | None


@dataclass(eq=False)
class Job:
    """The continuations of one request."""

    members: Sequence[Member]
    on_update: Callable[[Update], None]
    """Called at the end of each continuation. If `Member.needs_text` is set, also called after each token."""
    on_failure: Callable[[Exception], None]
    """Called once if the job fails. No other call follows."""
    deadline: float = float("inf")
    """The time, by `time.monotonic`, at which the job ends with its text so far, or fails if it is still queued."""
    is_over: bool = False
    """Whether the job was cancelled, or has failed."""


@dataclass(frozen=True, eq=False)
class _Choice:
    """A continuation of a job."""

    job: Job
    index: int
    member: Member

    def update(self, finish: Finish | None) -> Update:
        """Return the current state of the continuation. `finish` is the reason why it ended, or None if it goes on."""
        sample = self.member.sample
        text = sample.text if finish else sample.final_text(self.member.settings.stop)
        return Update(self.index, text, len(sample.tokens), finish)


class Engine:
    """A batch, a queue, and the thread that generates text. After `close`, the thread ends when all jobs are done."""

    def __init__(
        self,
        model: InferenceModel,
        tokenizer: Tokenizer,
        limits: Limits,
        on_step: Callable[[int], None] = lambda num_tokens: None,
    ) -> None:
        self._model, self._tokenizer, self._limits, self._on_step = model, tokenizer, limits, on_step
        self._waiting: deque[_Choice] = deque()
        self._running: dict[Member, _Choice] = {}
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)
        self._thread.start()

    @property
    def num_running(self) -> int:
        """Return the number of continuations in the batch."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Return the number of continuations in the queue."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Put the continuations of a job into the queue, all or none.

        Raises:
            QueueFullError: if the queue has no room for all of them.
            ClosedError: after `close`.
        """
        with self._changed:
            if self._is_closed:
                raise ClosedError
            if len(self._running) + len(self._waiting) + len(job.members) > self._limits.max_choices:
                raise QueueFullError
            self._waiting.extend(_Choice(job, index, member) for index, member in enumerate(job.members))
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Drop the remaining continuations of a job. Do nothing if the job is done."""
        with self._changed:
            job.is_over = True
            self._changed.notify()

    def close(self, seconds: float = float("inf")) -> None:
        """Take no more jobs. Jobs already submitted may go on for at most `seconds` seconds."""
        limit = time.monotonic() + seconds
        with self._changed:
            self._is_closed = True
            for choice in (*self._waiting, *self._running.values()):
                choice.job.deadline = min(choice.job.deadline, limit)
            self._changed.notify()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the end of the thread, at most `seconds` seconds. `close` must have been called before."""
        self._thread.join(seconds)

    def _run(self) -> None:
        batch = Batch(self._model, self._tokenizer)
        while self._wait():
            try:
                self._round(batch)
            except Exception as error:
                log.exception("the batch failed; its %d continuations are abandoned", len(self._running))
                batch = Batch(self._model, self._tokenizer)
                self._fail({choice.job for choice in self._drop(list(self._running))}, error)

    def _wait(self) -> bool:
        """Wait for continuations. Return False if there are none and the engine is closed."""
        with self._changed:
            while not (self._waiting or self._running):
                if self._is_closed:
                    return False
                self._changed.wait()
        return True

    def _round(self, batch: Batch) -> None:
        """Remove dropped continuations from the batch, add queued ones, and generate one token for each."""
        batch.remove(self._leave())
        joining = self._admit()
        if joining:
            batch.join(joining)
        if not batch.members:
            return
        members = batch.step()
        self._on_step(len(members))
        ended = [member for member in members if member.sample.finish is not None]
        for choice in self._drop(ended):
            reason = choice.member.sample.finish
            choice.job.on_update(choice.update("length" if reason == "max_new_tokens" else "stop"))
        for choice in list(self._running.values()):
            if choice.member.needs_text:
                choice.job.on_update(choice.update(None))

    def _leave(self) -> list[Member]:
        """Drop the continuations of jobs that are over or past their deadline. Return those to remove from the batch.

        At its deadline, a job fails if one of its continuations is still in the queue. If none is, the continuations in
        the batch end with their text so far.
        """
        now = time.monotonic()
        late = {each.job for each in tuple(self._waiting) if each.job.deadline <= now and not each.job.is_over}
        self._fail(late, TooLateError())
        leaving = [each for each in self._running.values() if each.job.is_over or each.job.deadline <= now]
        for choice in self._drop([each.member for each in leaving]):
            if not choice.job.is_over:
                choice.member.sample.decode(self._tokenizer, choice.member.settings)
                choice.job.on_update(choice.update("length"))
        with self._changed:
            self._waiting = deque(each for each in self._waiting if not each.job.is_over)
        return [choice.member for choice in leaving]

    def _admit(self) -> list[Member]:
        """Take as many continuations from the queue as the batch has room for, and return them."""
        with self._changed:
            num_free = self._limits.max_batch - len(self._running)
            admitted = [self._waiting.popleft() for _ in range(min(num_free, len(self._waiting)))]
            self._running |= {choice.member: choice for choice in admitted}
        return [choice.member for choice in admitted]

    def _drop(self, members: Sequence[Member]) -> list[_Choice]:
        """Remove `members` from the running continuations. Return the `_Choice` of each of them."""
        with self._changed:
            return [self._running.pop(member) for member in members]

    def _fail(self, jobs: Collection[Job], error: Exception) -> None:
        for job in jobs:
            job.is_over = True
            job.on_failure(error)
