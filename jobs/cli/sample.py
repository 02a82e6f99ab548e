"""Text from a trained model, on the command line: ``python -m jobs sample --model RUN --prompt TEXT``.

Without `--prompt` a terminal is asked for one after another: lines can be edited and called back, Ctrl-C stops the
text, Ctrl-D ends. What comes from elsewhere (``echo TEXT | ...``) is one prompt.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Sequence

from jobs.config import GenerateConfig
from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.generate import Request, generate
from jobs.generation.inference import to_inference
from jobs.generation.stream import InferenceModel
from jobs.lake.layout import Lake
from jobs.lake.uri import to_uri
from jobs.model_io.folder import load_model
from jobs.model_io.locate import find_model
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def sample(options: argparse.Namespace) -> None:
    """Print prompt and continuation to stdout as it comes, all else to stderr.

    Raises:
        InputError: if there is no such model, or it is damaged.
    """
    model, tokenizer = load_model(find_model(options.model, Lake(to_uri(options.lake))))
    speaker = Speaker(to_inference(model, options.dtype), tokenizer, _settings(options))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # it may know fewer letters than the model
    prompt = options.prompt
    if prompt is None:
        if sys.stdin.isatty():
            converse(speaker)
            return
        prompt = sys.stdin.buffer.read().decode(errors="replace").rstrip("\r\n")
    sys.stdout.write(prompt)
    speaker.say(prompt)


class Speaker:
    """Continues prompts on stdout; each next one draws with other random numbers."""

    def __init__(self, model: InferenceModel, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._turn = 0
        self._num_shown = 0

    def say(self, prompt: str) -> None:
        """Write the continuation as it comes, and at the end a line feed, and the speed to stderr."""
        request = Request(prompt.encode(errors="replace").decode(), sample=self._turn)
        self._turn += 1
        self._num_shown = 0
        try:
            made = generate(self._model, self._tokenizer, [request], self._settings, self._show)
        finally:
            sys.stdout.write("\n")
            sys.stdout.flush()
        log.info("%d tokens, %.0f tokens/s", made.num_tokens, made.tokens_per_second)

    def _show(self, samples: Sequence[Continuation]) -> None:
        text = samples[0].final_text(self._settings.stop)
        sys.stdout.write(text[self._num_shown :])
        sys.stdout.flush()
        self._num_shown = max(self._num_shown, len(text))


def converse(speaker: Speaker) -> None:
    """Ask for prompts and continue them, until the input ends."""
    import readline  # noqa: F401, PLC0415 - lets `input` edit lines and remember them; absent where there is no terminal

    log.info("a prompt and Enter; Ctrl-C stops the text, Ctrl-D ends")
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
            speaker.say(prompt)
        except KeyboardInterrupt:
            log.info("stopped")


def _settings(options: argparse.Namespace) -> GenerationSettings:
    chosen = {name: value for name, value in vars(options).items() if name in GenerateConfig.model_fields}
    return GenerationSettings.of(GenerateConfig(**chosen))
