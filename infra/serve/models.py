"""Loads the model that is served, and replaces it when another champion is promoted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from infra.serve.engine import Engine
from infra.serve.settings import Limits
from jobs.errors import NightjarError
from jobs.generation.inference import InferenceModel, to_inference
from jobs.lake.champion import champions_pipeline, read_champion
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.manifest import parse_manifest
from jobs.lake.models import find_model
from jobs.lake.uri import join
from jobs.model_io.folder import parse_model, read_contents
from jobs.tokenizer.tokenizer import Tokenizer

_MOST_WAIT_SECONDS = 600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Served:
    """A loaded model and the engine that generates with it."""

    names: tuple[str, ...]
    """The names that clients may use for the model."""
    uri: str
    version: str
    """The version of the champion's file when the model was loaded. Empty if the model was not loaded as a champion."""
    fingerprint: str
    """The first 16 characters of the model's fingerprint."""
    loaded_at: int
    model: InferenceModel
    tokenizer: Tokenizer
    engine: Engine


class Models:
    """The model of the service. If it is a champion, `follow` replaces it when another model is promoted."""

    def __init__(
        self,
        name: str,
        lake: Lake,
        dtype: str,
        limits: Limits,
        on_step: Callable[[int], None] = lambda num_tokens: None,
    ) -> None:
        self._name, self._lake, self._dtype, self._limits, self._on_step = name, lake, dtype, limits, on_step
        self._pipeline = champions_pipeline(name, lake)
        self._last_failure = ""
        self._stop = threading.Event()
        self._retired: list[Engine] = []
        self.on_reload: Callable[[bool], None] = lambda success: None
        """Called after each attempt to load another champion. The argument says whether the attempt succeeded."""
        self.current = self._load()

    def follow(self, seconds: float) -> threading.Thread | None:
        """Start a thread that checks every `seconds` seconds for another champion, and return the thread.

        If the service serves a fixed model instead of a champion, start no thread and return None.
        """
        if self._pipeline is None:
            return None
        thread = threading.Thread(target=self._follow, args=(seconds,), name="champion", daemon=True)
        thread.start()
        return thread

    def close(self, seconds: float) -> None:
        """Take no more requests. Requests in progress may go on for at most `seconds` seconds."""
        self._stop.set()
        for engine in self._engines():
            engine.close(seconds)

    def join(self, seconds: float) -> None:
        """Wait for the threads of all engines to end, at most `seconds` seconds for each."""
        for engine in self._engines():
            engine.join(seconds)

    def _engines(self) -> list[Engine]:
        return [self.current.engine, *self._retired]

    def _follow(self, seconds: float) -> None:
        """Check every `seconds` seconds for another champion, until the service stops. Failures double the pause."""
        wait = seconds
        while not self._stop.wait(wait):
            try:
                self._reload()
            except (NightjarError, OSError) as error:
                self._stay(str(error))
            except Exception as error:
                log.exception("the champion cannot be loaded")
                self._stay(str(error))
            else:
                wait, self._last_failure = seconds, ""
                continue
            wait = max(seconds, min(2 * wait, _MOST_WAIT_SECONDS))

    def _reload(self) -> None:
        """If another model has become the champion, load it."""
        assert self._pipeline is not None
        _, version = read_champion(self._pipeline)
        if version not in (self.current.version, ""):
            self._replace(self._load())
            self.on_reload(True)

    def _stay(self, reason: str) -> None:
        """Keep the current model after a failure. Log `reason` once if attempts fail repeatedly for the same reason."""
        self.on_reload(False)
        if reason != self._last_failure:
            log.warning("the champion cannot be loaded, so the current model stays in use: %s", reason)
        self._last_failure = reason

    def _replace(self, loaded: Served) -> None:
        """Serve another model. Requests in progress finish with the previous model."""
        before, self.current = self.current, loaded
        self._retired = [engine for engine in (*self._retired, before.engine) if engine.is_alive]
        before.engine.close()
        if self._stop.is_set():  # the service was closed while the model was loaded
            loaded.engine.close()

    def _load(self) -> Served:
        names, version = [self._name], ""
        if self._pipeline is not None:
            champion, version = read_champion(self._pipeline)
            names += [champion.run_id] if champion else []
        uri = find_model(self._name, self._lake)
        contents = read_contents(uri)
        trained, tokenizer = parse_model(contents, uri)
        fingerprint = parse_manifest(contents[MANIFEST], join(uri, MANIFEST)).fingerprint[:16]
        model = to_inference(trained, self._dtype)
        engine = Engine(model, tokenizer, self._limits, self._on_step)
        log.info("model %s: %s, %s parameters", ", ".join(names), uri, f"{trained.num_parameters:,}")
        return Served(tuple(names), uri, version, fingerprint, int(time.time()), model, tokenizer, engine)
