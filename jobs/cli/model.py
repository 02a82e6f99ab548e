"""Use a trained model: ``python -m jobs sample --model RUN --prompt TEXT``, and ``python -m jobs export``."""

from __future__ import annotations

import logging
import re
import shlex
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from jobs.cli import options
from jobs.cli.output import accept_any_text
from jobs.cli.runner import command_line
from jobs.errors import InputError, counted

if TYPE_CHECKING:
    from jobs.config import GenerateConfig
    from jobs.generation.continuation import Continuation, GenerationSettings
    from jobs.generation.inference import InferenceModel
    from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)

app = typer.Typer()


# The defaults repeat those of the section generate, which takes too long to import for --help; a test compares them.
@app.command("sample")
def sample(
    *,
    context: typer.Context,
    model: options.Model,
    lake: options.Lake = "lake",
    prompt: Annotated[
        str | None,
        Option(metavar="TEXT", help="Text to continue. Default: ask on a terminal, else read standard input."),
    ] = None,
    prompt_file: Annotated[
        str | None, Option(metavar="FILE", help="File whose whole text is the prompt: path, file:///... or s3://...")
    ] = None,
    max_new_words: Annotated[int, Option(metavar="N", help="End the text after N words.")] = 20,
    min_new_words: Annotated[
        int | None, Option(metavar="N", help="Write at least N words. Only --max-new-tokens and --stop end earlier.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, Option(metavar="N", help="End the text after N tokens, instead of --max-new-words.")
    ] = None,
    temperature: Annotated[
        float, Option(metavar="T", help="Randomness: 0 always takes the likeliest token, above 1 is more random.")
    ] = 0.8,
    top_k: Annotated[int | None, Option(metavar="K", help="Draw among the K likeliest tokens.")] = 50,
    top_p: Annotated[
        float | None, Option(metavar="P", help="Draw among the likeliest tokens that together have probability P.")
    ] = None,
    min_p: Annotated[
        float | None, Option(metavar="P", help="Draw among tokens with at least P times the highest probability.")
    ] = None,
    repetition_penalty: Annotated[
        float, Option(metavar="R", help="Above 1: tokens that already occur in the text become less likely.")
    ] = 1.0,
    stop: Annotated[
        list[str] | None, Option(metavar="TEXT", help="End before this text. Repeat the option for several texts.")
    ] = None,
    seed: Annotated[int, Option(metavar="N", help="The same seed gives the same text.")] = 0,
    dtype: Annotated[
        Literal["float32", "bfloat16", "int8"], Option(help="Number format; int8 is fastest for single prompts.")
    ] = "float32",
) -> None:
    """Write text with a trained model.

    The prompt and its continuation are written to standard output, messages to standard error. If no prompt is given,
    this command asks for one prompt after another on a terminal. Input from a pipe (echo TEXT | ...) is one prompt.
    """
    if prompt is not None and prompt_file is not None:
        raise InputError("sample: --prompt and --prompt-file are both given; give one of them")
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    chosen = _validated(context.params, given)  # before torch is imported, which takes seconds
    if prompt_file is not None:
        prompt = _read_prompt(prompt_file)

    from jobs.lake.layout import Lake
    from jobs.lake.models import find_model
    from jobs.lake.uri import to_uri

    place = find_model(model, Lake(to_uri(lake)))

    from jobs.generation.continuation import GenerationSettings
    from jobs.generation.inference import to_inference
    from jobs.model_io.folder import load_model

    loaded, tokenizer = load_model(place)
    repl = Repl(to_inference(loaded, chosen.dtype), tokenizer, GenerationSettings.of(chosen))
    if prompt is None and sys.stdin.isatty():
        converse(repl)
    else:
        if prompt is None:
            prompt = sys.stdin.buffer.read().decode(errors="replace").rstrip("\r\n")
        sys.stdout.write(prompt)
        repl.complete(prompt)
    named = ("--lake", lake, "--model", model)
    log.info("next: %s", command_line("export", *named, "--format", "gguf", "--output", "model.gguf"))


def _read_prompt(path: str) -> str:
    """Return the text of a file as one prompt."""
    from jobs.config import GenerateConfig
    from jobs.config.prompts import read_prompts
    from jobs.lake import store

    try:
        (prompt,) = read_prompts(GenerateConfig(prompts_file=path, prompt_unit="file"), store.read_bytes)
    except InputError as error:
        raise InputError(str(error).replace("generate.prompts_file", "--prompt-file")) from None
    return prompt


def _validated(parameters: Mapping[str, Any], given: Collection[str]) -> GenerateConfig:
    """Convert `parameters`, the options of the command `sample`, to settings of the section generate, and check them.

    `given` holds the names of the options that the user has given. Log a warning for each of these options that has no
    effect.

    Raises:
        InputError: if an option is out of range. The message names the option.
    """
    from pydantic import ValidationError

    from jobs.config import Config, GenerateConfig, first_wrong
    from jobs.config.effects import Facts, explain_without_effect

    chosen = {name: parameters[name] for name in GenerateConfig.model_fields.keys() & parameters.keys()}
    try:
        config = Config.model_validate({"corpus": "-", "generate": {**chosen, "stop": chosen["stop"] or ()}})
    except ValidationError as error:
        raise InputError(_with_options(first_wrong(error))) from None
    for line in explain_without_effect(config, (f"generate.{name}" for name in chosen if name in given), Facts()):
        log.warning("%s", _with_options(line))
    return config.generate


def _with_options(message: str) -> str:
    """Replace the names of settings in a message by options of `sample`: ``generate.top_k`` becomes ``--top-k``."""
    return re.sub(r"\bgenerate\.(\w+)", lambda found: "--" + found[1].replace("_", "-"), message)


class Repl:
    """Continues prompts with a model, and writes the text to standard output.

    Each prompt draws from its own random stream.
    """

    def __init__(self, model: InferenceModel, tokenizer: Tokenizer, settings: GenerationSettings) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = settings
        self._num_prompts = 0
        self._num_shown = 0
        accept_any_text("replace")

    def complete(self, prompt: str) -> None:
        """Write the continuation of `prompt` while it is generated, then a line feed. Log the speed."""
        from jobs.generation.generate import Request, generate

        request = Request(prompt.encode(errors="replace").decode(), sample=self._num_prompts)
        self._num_prompts += 1
        self._num_shown = 0
        started = time.perf_counter()
        try:
            (made,) = generate(self._model, self._tokenizer, [request], self._settings, self._show)
        finally:
            sys.stdout.write("\n")
            sys.stdout.flush()
        num_tokens = len(made.tokens)
        log.info("%s, %.0f tokens/s", counted(num_tokens, "token"), num_tokens / (time.perf_counter() - started))

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


_USES = {
    "gguf": "llama-cli -m {} -p 'The man'  (of llama.cpp)",
    "zip": "unzip {} -d model",
    "folder": "pip install transformers, then in Python: from transformers import pipeline;"
    " print(pipeline('text-generation', {})('The man', max_new_tokens=40))",
}
"""For each export format, a command that uses the exported model. ``{}`` stands for the model's path."""


@app.command("export")
def export(
    model: options.Model,
    form: Annotated[
        Literal["gguf", "zip", "folder"],
        Option(
            "--format",
            help="gguf: for llama.cpp; folder: for transformers; zip: the same folder as one file.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str, Option(metavar="PLACE", help="File or folder to write: path, file:///... or s3://...", show_default=False)
    ],
    lake: options.Lake = "lake",
) -> None:
    """Write a trained model as a GGUF file, a zip file or a folder."""
    from jobs.lake import store
    from jobs.lake.layout import Lake
    from jobs.lake.models import find_model
    from jobs.lake.uri import base_name, readable, to_uri, without_ending

    source, output_uri = find_model(model, Lake(to_uri(lake))), to_uri(output)
    _check_output(output_uri, is_folder=form == "folder")

    from jobs.model_io.archive import pack
    from jobs.model_io.folder import parse_model, read_contents
    from jobs.model_io.gguf import to_gguf

    contents = read_contents(source)
    parsed, tokenizer = parse_model(contents, source)
    if form == "folder":
        store.write_folder(output_uri, contents)
    elif form == "zip":
        store.write_bytes(output_uri, pack(contents))
    else:
        store.write_bytes(output_uri, to_gguf(parsed, tokenizer, without_ending(base_name(output_uri), (".gguf",))))
    path = readable(output_uri)
    log.info("wrote %s: %s, %s parameters", path, form, f"{parsed.num_parameters:,}")
    log.info("next: %s", _USES[form].format(repr(path) if form == "folder" else shlex.quote(path)))


def _check_output(output: str, *, is_folder: bool) -> None:
    """Raise InputError if `output` cannot be written, or if the export would replace something unexpected.

    A new file may replace a file. A new folder (`is_folder`) may replace only the folder of an earlier model.
    """
    from jobs.lake import store
    from jobs.lake.layout import MANIFEST
    from jobs.lake.uri import bucket_and_key, is_s3, join

    if not is_s3(output):
        _check_local_output(output, is_folder=is_folder)
    elif not bucket_and_key(output)[1]:
        raise InputError(f"{output}: is a bucket; name a file or folder in it")
    store.check_writable(output.rpartition("/")[0], "this folder", "--output")
    if not is_folder:
        return
    if store.exists(output):
        raise InputError(f"{output}: is a file; name a new or empty folder")
    found = store.list_files(output)
    before = store.read_manifest(output) if found else None
    names = {MANIFEST, *(entry.name for entry in before.files)} if before and before.kind == "model" else set()
    others = [info.uri for info in found if info.uri not in {join(output, name) for name in names}]
    if others:
        raise InputError(f"{output}: holds files other than a model, such as {others[0]}; name a new or empty folder")


def _check_local_output(output: str, *, is_folder: bool) -> None:
    """Raise InputError if the local path `output` is not accessible.

    Raise it also if a file is to be written and `output` is something other than a file.
    """
    from jobs.lake.uri import local_path

    try:
        mode = local_path(output).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(f"{output}: cannot be written to ({error.strerror}); choose another --output") from None
    if S_ISDIR(mode) and not is_folder:
        raise InputError(f"{output}: is a folder; name the file to write")
    if not S_ISREG(mode) and not is_folder:
        raise InputError(f"{output}: is a pipe or a device; name the file to write")
