"""A model in another form, on the command line: ``python -m jobs export --model RUN --format gguf --output FILE``."""

from __future__ import annotations

import argparse
import logging

from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import MANIFEST, Lake
from jobs.lake.uri import base_name, is_s3, join, local_path, to_uri
from jobs.model_io.archive import pack
from jobs.model_io.folder import parse_model, read_contents, write_contents
from jobs.model_io.locate import find_model

log = logging.getLogger(__name__)


def export(options: argparse.Namespace) -> None:
    """Write the model as one GGUF file, one zip file, or the folder that `transformers` opens.

    Raises:
        InputError: if there is no such model, or it is damaged: it is opened before anything is written. Or if what
            stands at the output would be lost.
    """
    source = find_model(options.model, Lake(to_uri(options.lake)))
    contents = read_contents(source)
    model, tokenizer = parse_model(contents, source)
    output = to_uri(options.output)
    _check_output(output, is_folder=options.format == "folder")
    if options.format == "folder":
        write_contents(output, contents)
    elif options.format == "zip":
        store.write_bytes(output, pack(contents))
    else:
        from jobs.model_io.gguf import to_gguf  # noqa: PLC0415 - only this format needs the gguf package

        store.write_bytes(output, to_gguf(model, tokenizer, base_name(output).removesuffix(".gguf")))
    log.info("%s: %s of %s parameters", output, options.format, f"{model.num_parameters:,}")


def _check_output(output: str, *, is_folder: bool) -> None:
    """Check that nothing but an earlier model is replaced."""
    if not is_folder:
        if not is_s3(output) and local_path(output).is_dir():
            raise InputError(f"{output}: a folder; name the file that is to be written")
        return
    if store.exists(output):
        raise InputError(f"{output}: a file; name a new or empty folder")
    found = store.list_files(output)
    before = store.read_manifest(output) if found else None
    names = {MANIFEST, *(entry.name for entry in before.files)} if before and before.kind == "model" else set()
    others = [info.uri for info in found if info.uri not in {join(output, name) for name in names}]
    if others:
        raise InputError(f"{output}: holds what belongs to no model, as {others[0]}; name a new or empty folder")
