"""How a corpus is written down, and what the names of its files mean: formats, compressions, patterns.

Pure functions of strings: nothing here touches a disk or a network.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from jobs.lake.uri import is_s3, local_path, to_uri

TEXT_FORMATS = ("txt", "jsonl", "parquet")
COMPRESSIONS = ("gz", "bz2", "zst")

_TEXT_NAME = re.compile(rf"\.({'|'.join(TEXT_FORMATS)})(?:\.({'|'.join(COMPRESSIONS)}))?$", re.IGNORECASE)
_WILDCARD = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def corpus_places(corpus: str) -> list[str]:
    """The URIs of the places that a corpus names: one, several in lines of their own, or a JSON list of them.

    Raises:
        InputError: if there is none, or one of them is no place.
    """
    text, lines = corpus.strip(), corpus.splitlines()
    if text.startswith("[") and text.endswith("]"):
        with suppress(ValueError):  # the name of a file may begin and end so
            lines = [str(place) for place in json.loads(text)]
    return [to_uri(line) for line in lines if line.strip()] or [to_uri(corpus)]


def to_corpus(corpus: str) -> str:
    """`corpus` as it stands in a configuration: URIs, one in each line."""
    return "\n".join(corpus_places(corpus))


def text_format(name: str) -> tuple[str, str | None] | None:
    """Format and compression that a file's name tells (``a.jsonl.gz``: ``jsonl``, ``gz``); None if it is not text."""
    found = _TEXT_NAME.search(name.lower())
    return (found[1], found[2]) if found else None


def text_stem(name: str) -> str:
    """A file's name without what tells its format: the same for the same text in another format."""
    return _TEXT_NAME.sub("", name)


def is_hidden(name: str) -> bool:
    """Whether a relative name, or a folder in it, starts with ``.`` or ``_``: Hadoop and Spark skip such."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def glob_of(uri: str) -> tuple[str, re.Pattern[str]] | None:
    """The folder in which a pattern (``*``, ``**``, ``?``, ``[a-z]``) starts, and what names below it must match.

    None if there is no wildcard in `uri`.
    """
    parts = (uri if is_s3(uri) else local_path(uri).as_posix()).split("/")
    fixed = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    if fixed == len(parts):
        return None
    folder, pattern = "/".join(parts[:fixed]), "/".join(parts[fixed:])
    regex, end = "", 0
    for wildcard in _WILDCARD.finditer(pattern):
        regex += re.escape(pattern[end : wildcard.start()])
        regex += _MEANING.get(wildcard[0]) or wildcard[0].replace("[!", "[^")
        end = wildcard.end()
    regex = f"{regex}{re.escape(pattern[end:])}\\Z"
    return (folder if is_s3(uri) else Path(folder or "/").as_uri()), re.compile(regex)
