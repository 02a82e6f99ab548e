"""Reads corpus files that hold token ids: numbers, or lines of the form ``word,[ids],frequency``.

Each id is read as a word, in the order of the file, so that `tokenize.kind=word` turns each id into one token. A file
whose words are sorted and distinct is a dictionary rather than a text. It is read with a warning, because windows over
the ids of a dictionary have no meaning.
"""

from __future__ import annotations

import re

from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.documents import Documents, plain_line_ends, read_text
from jobs.errors import InputError
from jobs.sources.listing import Source

_LISTED = re.compile(rb"(.*?),\s*\[([\d,\s]*)\],\s*\d+\s*\Z")
_PLAIN = re.compile(rb"[\d\s,;\[\]]+\Z")
_ID = re.compile(rb"\d+")
_MIN_LINES = 3  # fewer lines do not identify a format


def ids_as_words(batch: Documents) -> Documents:
    """Return documents that consist of ids joined by spaces. Drop documents without ids.

    The file must have passed `check_ids`.
    """
    texts = [b" ".join(_ID.findall(b"\n".join(map(_ids, text.split(b"\n"))))) for text in batch.texts]
    kept = [i for i, text in enumerate(texts) if text]
    return Documents.of([texts[i] for i in kept], batch.offsets[kept], batch.counts)


def check_ids(source: Source) -> bool:
    """Return whether a file of ids is a dictionary: a list of sorted and distinct words.

    Raises:
        InputError: if the file is not a text file, or a line has no ids. The message names the first such line.
    """
    if source.format != "txt":
        raise InputError(
            f"{source.uri}: tokenize.input=ids reads only text files, and this file is .{source.format}; set"
            " tokenize.input=text"
        )
    number, ascending, last = 0, True, None
    for batch in read_text(ByteRange.whole(source), "line"):
        for line in batch.texts:
            number += 1
            listed = _LISTED.match(line)
            if not listed and not _PLAIN.match(line):
                shown = line[:40].decode(errors="replace")
                raise InputError(
                    f"{source.uri}: non-empty line {number} ('{shown}') holds no ids; separate ids by spaces or commas,"
                    " or write word,[ids],frequency; or set tokenize.input=text"
                )
            ascending = ascending and listed is not None and (last is None or listed[1] > last)
            last = listed[1] if listed else None
    return ascending and number >= _MIN_LINES


def looks_like_a_list(beginning: bytes) -> bool:
    """Return whether a file begins with three or more lines, all of the form ``word,[ids],frequency``."""
    lines = [line for line in plain_line_ends(beginning[:4096]).split(b"\n")[:-1] if line.strip()]
    return len(lines) >= _MIN_LINES and all(_LISTED.match(line) for line in lines)


def _ids(line: bytes) -> bytes:
    listed = _LISTED.match(line)
    return listed[2] if listed else line
