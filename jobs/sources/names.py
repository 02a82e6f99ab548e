"""The notation of a corpus, and the formats that file names stand for, as pure functions of strings."""

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
    """Return the URIs of a corpus: one path or URI, several on separate lines, or a JSON list of them."""
    text, lines = corpus.strip(), corpus.splitlines()
    if text.startswith("[") and text.endswith("]"):
        with suppress(ValueError):  # a file's name may have such brackets
            lines = [str(place) for place in json.loads(text)]
    return [to_uri(line) for line in lines if line.strip()] or [to_uri(corpus)]


def to_corpus(corpus: str) -> str:
    """Return the corpus as configurations hold it: URIs, one per line."""
    return "\n".join(corpus_places(corpus))


def text_format(name: str) -> tuple[str, str | None] | None:
    """Return format and compression of a file by its name (``jsonl``, ``gz`` for ``a.jsonl.gz``); None if not text."""
    found = _TEXT_NAME.search(name.lower())
    return (found[1], found[2]) if found else None


def text_stem(name: str) -> str:
    """Return a file's name without its format's suffixes: equal for the same text in another format."""
    return _TEXT_NAME.sub("", name)


def is_hidden(name: str) -> bool:
    """Return whether a relative name, or a folder in it, starts with ``.`` or ``_``, as Hadoop's hidden files do."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def glob_of(uri: str) -> tuple[str, re.Pattern[str]] | None:
    """Return the folder above the wildcards (``*``, ``**``, ``?``, ``[a-z]``) of `uri`, and a regex for names below it.

    None if `uri` has no wildcard.
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
