"""A model in another form, on the command line: ``python -m jobs export --model RUN --format gguf --output FILE``."""

from __future__ import annotations

import argparse
import logging

from jobs import lake
from jobs.model.archive import pack
from jobs.model.folder import parse_model, read_contents, write_contents
from jobs.model.places import find_model
from jobs.paths import Lake, base_name, to_uri

log = logging.getLogger(__name__)


def export(options: argparse.Namespace) -> None:
    """Write the model as one GGUF file, one zip file, or the folder that `transformers` opens.

    Raises:
        InputError: if there is no such model, or it is damaged: it is opened before anything is written.
    """
    source = find_model(options.model, Lake(to_uri(options.lake)))
    contents = read_contents(source)
    model, tokenizer = parse_model(contents, source)
    output = to_uri(options.output)
    if options.format == "folder":
        write_contents(output, contents)
    elif options.format == "zip":
        lake.write_bytes(output, pack(contents))
    else:
        from jobs.model.gguf_file import to_gguf  # noqa: PLC0415 - only this format needs the gguf package

        lake.write_bytes(output, to_gguf(model, tokenizer, base_name(output).removesuffix(".gguf")))
    log.info("%s: %s of %s parameters", output, options.format, f"{model.num_parameters:,}")
