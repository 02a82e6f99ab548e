"""Write text with a trained model: ``python -m jobs sample --model RUN --prompt TEXT``.

Without `--prompt`, a terminal asks for one prompt after another. Input from elsewhere (``echo TEXT | ...``) is one
prompt.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from jobs.cli import options
from jobs.errors import InputError

if TYPE_CHECKING:
    from jobs.config import GenerateConfig

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
    max_new_tokens: Annotated[
        int | None, Option(metavar="N", help="End the text after N tokens. Default: after 20 words.")
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

    The prompt and its continuation go to standard output, messages to standard error.
    """
    chosen = _validated(context.params)  # first, since the imports below take seconds

    from jobs.cli.repl import Repl, converse
    from jobs.generation.continuation import GenerationSettings
    from jobs.generation.inference import to_inference
    from jobs.lake.layout import Lake
    from jobs.lake.uri import to_uri
    from jobs.model_io.folder import load_model
    from jobs.model_io.locate import find_model

    loaded, tokenizer = load_model(find_model(model, Lake(to_uri(lake))))
    repl = Repl(to_inference(loaded, chosen.dtype), tokenizer, GenerationSettings.of(chosen))
    if prompt is None and sys.stdin.isatty():
        converse(repl)
        return
    if prompt is None:
        prompt = sys.stdin.buffer.read().decode(errors="replace").rstrip("\r\n")
    sys.stdout.write(prompt)
    repl.complete(prompt)


def _validated(parameters: Mapping[str, Any]) -> GenerateConfig:
    """Return the options that are settings of the section generate.

    Raises:
        InputError: naming the option that is out of range, and its value.
    """
    from pydantic import ValidationError

    from jobs.config import Config, GenerateConfig, first_wrong

    chosen = {name: parameters[name] for name in GenerateConfig.model_fields.keys() & parameters.keys()}
    try:
        return Config.model_validate({"corpus": "-", "generate": {**chosen, "stop": chosen["stop"] or ()}}).generate
    except ValidationError as error:
        message = first_wrong(error)
    raise InputError(re.sub(r"^generate\.(\w+)", lambda found: "--" + found[1].replace("_", "-"), message))
