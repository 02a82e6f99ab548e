"""Export a model: ``python -m jobs export --model RUN --format gguf --output FILE``."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import typer
from typer import Option

from jobs.cli import options
from jobs.errors import InputError

log = logging.getLogger(__name__)

app = typer.Typer()


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
    from jobs.lake.uri import base_name, to_uri
    from jobs.model_io.archive import pack
    from jobs.model_io.folder import parse_model, read_contents, write_contents
    from jobs.model_io.gguf import to_gguf
    from jobs.model_io.locate import find_model

    source = find_model(model, Lake(to_uri(lake)))
    contents = read_contents(source)
    parsed, tokenizer = parse_model(contents, source)
    output_uri = to_uri(output)
    _check_output(output_uri, is_folder=form == "folder")
    if form == "folder":
        write_contents(output_uri, contents)
    elif form == "zip":
        store.write_bytes(output_uri, pack(contents))
    else:
        store.write_bytes(output_uri, to_gguf(parsed, tokenizer, base_name(output_uri).removesuffix(".gguf")))
    log.info("wrote %s: %s, %s parameters", output_uri, form, f"{parsed.num_parameters:,}")


def _check_output(output: str, *, is_folder: bool) -> None:
    """Check that writing to `output` replaces nothing but an earlier model.

    Raises:
        InputError: if other files would be lost.
    """
    from jobs.lake import store
    from jobs.lake.layout import MANIFEST
    from jobs.lake.uri import is_s3, join, local_path

    if not is_folder:
        if not is_s3(output) and local_path(output).is_dir():
            raise InputError(f"{output}: is a folder; name the file to write")
        return
    if store.exists(output):
        raise InputError(f"{output}: is a file; name a new or empty folder")
    found = store.list_files(output)
    before = store.read_manifest(output) if found else None
    names = {MANIFEST, *(entry.name for entry in before.files)} if before and before.kind == "model" else set()
    others = [info.uri for info in found if info.uri not in {join(output, name) for name in names}]
    if others:
        raise InputError(f"{output}: holds files of no model, such as {others[0]}; name a new or empty folder")
