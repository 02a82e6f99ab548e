"""A prompt loop that continues texts with a model."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence

from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.generate import Request, generate
from jobs.generation.stream import InferenceModel
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class Repl:
    """Continues prompts on standard output. Each prompt draws from its own random stream."""

    def __init__(self, model: InferenceModel, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._num_prompts = 0
        self._num_shown = 0
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # its encoding may lack characters of the text

    def complete(self, prompt: str) -> None:
        """Write the continuation while it is generated, then a line feed; log the speed."""
        request = Request(prompt.encode(errors="replace").decode(), sample=self._num_prompts)
        self._num_prompts += 1
        self._num_shown = 0
        try:
            generated = generate(self._model, self._tokenizer, [request], self._settings, self._show)
        finally:
            sys.stdout.write("\n")
            sys.stdout.flush()
        log.info("%d tokens, %.0f tokens/s", generated.num_tokens, generated.tokens_per_second)

    def _show(self, samples: Sequence[Continuation]) -> None:
        text = samples[0].final_text(self._settings.stop)
        sys.stdout.write(text[self._num_shown :])
        sys.stdout.flush()
        self._num_shown = max(self._num_shown, len(text))


def converse(repl: Repl) -> None:
    """Ask for prompts and continue them until the input ends. Lines can be edited and recalled."""
    import readline  # noqa: F401 - makes `input` edit lines; systems without a terminal lack the module

    log.info("Type a prompt and press Enter. Ctrl-C stops the continuation, Ctrl-D ends the session.")
    while True:
        try:
            prompt = input("> ")
        except EOFError:
            sys.stdout.write("\n")
            return
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            continue
        try:
            repl.complete(prompt)
        except KeyboardInterrupt:
            log.info("stopped")
