"""Text that is tokens already: files of ids, and the ``word,[ids],frequency`` lists of an earlier pipeline.

Ids become words, so that `tokenize.kind=word` makes tokens of them one to one. A list is of use only if it is a
sequence: sorted, distinct words are a dictionary, and windows over it would teach the alphabet.
"""

from __future__ import annotations

import re

from jobs.corpus.documents import Documents, read_text
from jobs.corpus.splits import ByteRange
from jobs.errors import InputError
from jobs.sources.listing import Source

_LISTED = re.compile(rb"(.*?),\s*\[([\d,\s]*)\],\s*\d+\s*\Z")
_PLAIN = re.compile(rb"[\d\s,;\[\]]+\Z")
_ID = re.compile(rb"\d+")
_FEWEST = 3  # lines that say what a file is


def ids_as_words(batch: Documents) -> Documents:
    """Documents of ids with a space between; those without any are left out. What they are has been checked."""
    texts = [b" ".join(_ID.findall(b"\n".join(map(_ids, text.split(b"\n"))))) for text in batch.texts]
    kept = [i for i, text in enumerate(texts) if text]
    return Documents.of([texts[i] for i in kept], batch.offsets[kept], batch.counts)


def check_ids(source: Source) -> None:
    """Check that a file holds ids, in a sequence.

    Raises:
        InputError: naming the first line that holds none, or if the file is a dictionary.
    """
    if source.format != "txt":
        raise InputError(f"{source.uri}: tokenize.input=ids is for text files of ids, not for .{source.format}")
    number, ascending, last = 0, True, None
    for batch in read_text(ByteRange.whole(source), "line"):
        for line in batch.texts:
            number += 1
            listed = _LISTED.match(line)
            if not listed and not _PLAIN.match(line):
                shown = line[:40].decode(errors="replace")
                raise InputError(
                    f"{source.uri}: '{shown}', line {number} that is not empty, holds no ids; write ids with spaces"
                    " or commas between, or word,[ids],frequency; or set tokenize.input=text"
                )
            ascending = ascending and listed is not None and (last is None or listed[1] > last)
            last = listed[1] if listed else None
    if ascending and number >= _FEWEST:
        raise InputError(
            f"{source.uri}: a dictionary, not a text: its {number} words are sorted and each stands there once, so"
            " their order says nothing; give the text itself, or its ids in their order"
        )


def looks_like_a_list(beginning: bytes) -> bool:
    """Whether the first lines of a file, of which the last may be cut, are all ``word,[ids],frequency``."""
    lines = [line for line in beginning[:4096].split(b"\n")[:-1] if line.strip()]
    return len(lines) >= _FEWEST and all(_LISTED.match(line) for line in lines)


def _ids(line: bytes) -> bytes:
    listed = _LISTED.match(line)
    return listed[2] if listed else line
