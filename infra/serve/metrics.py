"""The metrics of the service, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("nightjar_requests", "Answered requests", ["path", "status"], registry=registry)
        self.tokens = Counter("nightjar_generated_tokens", "Generated tokens", registry=registry)
        self.prompt_tokens = Counter("nightjar_prompt_tokens", "Tokens of accepted prompts", registry=registry)
        self.steps = Counter(
            "nightjar_decoding_steps",
            "Decoding steps. Each generates one token of every continuation in the batch",
            registry=registry,
        )
        self.unfinished = Counter(
            "nightjar_unfinished_requests",
            "Requests that failed, or whose client disconnected before the end",
            registry=registry,
        )
        self.reloads = Counter("nightjar_reloads", "Attempts to load another champion", ["result"], registry=registry)
        for result in ("success", "failure"):
            self.reloads.labels(result)
        self.first_token = Histogram(
            "nightjar_first_token_seconds",
            "Seconds from a request to its first text",
            registry=registry,
            buckets=_SECONDS,
        )
        self.seconds = Histogram(
            "nightjar_completion_seconds",
            "Seconds from a request to the end of its answer",
            registry=registry,
            buckets=_SECONDS,
        )
        self._running = Gauge("nightjar_running", "Continuations in the batch", registry=registry)
        self._waiting = Gauge("nightjar_waiting", "Continuations in the queue", registry=registry)
        self._model = Gauge("nightjar_model", "The model in use", ["model", "fingerprint"], registry=registry)

    def count_step(self, num_tokens: int) -> None:
        """Count a decoding step that generated `num_tokens` tokens."""
        self.steps.inc()
        self.tokens.inc(num_tokens)

    def watch(self, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        """Set the functions that return the current numbers of continuations in the batch and in the queue."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)

    def text(self, model: str, fingerprint: str) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        self._model.clear()
        self._model.labels(model, fingerprint).set(1)
        text: bytes = generate_latest(self._registry)
        return text
