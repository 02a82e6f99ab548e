"""Parses the value of `corpus` and the patterns in it, and finds the format of a file by its name."""

from __future__ import annotations

import fnmatch
import json
import re
from contextlib import suppress

from jobs.lake.uri import ending_of, to_uri, without_ending

TEXT_FORMATS = {"txt": "txt", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet"}
"""A dict from the ending of a file's name to the format of the file."""
COMPRESSIONS = ("gz", "bz2", "xz", "zst")
NAMES_WITH_TEXT = "*.txt, *.jsonl or *.parquet, alone or with .gz, .bz2, .xz or .zst"

_ENDINGS: dict[str, tuple[str, str | None]] = {f".{ending}": (name, None) for ending, name in TEXT_FORMATS.items()}
_ENDINGS |= {f"{ending}.{packed}": (_ENDINGS[ending][0], packed) for ending in _ENDINGS for packed in COMPRESSIONS}
_HADOOP = re.compile(r"(?:^|/)part-(?:[mr]-)?\d{5,}(?:\.(gz|bz2|xz|zst))?$")
_WILDCARD = re.compile(r"[*?]|\[[^\]]+\]")


def corpus_places(corpus: str) -> list[str]:
    """Return the URIs of the places of a corpus.

    `corpus` is one path or URI, several on separate lines, or a JSON list of them.
    """
    text, lines = corpus.strip(), re.split("\r?\n", corpus)
    if text.startswith("[") and text.endswith("]"):
        with suppress(ValueError, RecursionError):  # a file's name may have such brackets
            listed = json.loads(text)
            lines = listed if all(isinstance(place, str) for place in listed) else lines
    return [to_uri(line) for line in lines if line.strip()] or [to_uri(corpus)]


def to_corpus(corpus: str) -> str:
    """Return a value of `corpus` in the form in which configurations store it: URIs, one per line."""
    return "\n".join(corpus_places(corpus))


def text_format(name: str) -> tuple[str, str | None] | None:
    """Return the format and the compression of a text file by its name: ``jsonl`` and ``gz`` for ``a.jsonl.gz``.

    Return None if the name is not that of a text file. Text files written by Hadoop and Spark have no ending of their
    own: ``part-r-00000``, ``part-00000.gz``.
    """
    if ending := text_ending(name):
        return _ENDINGS[ending]
    hadoop = _HADOOP.search(name)
    return ("txt", hadoop[1]) if hadoop else None


def text_ending(name: str) -> str:
    """Return the ending that shows a file's format, such as ``.jsonl.gz``. Return "" if there is none."""
    return ending_of(name, _ENDINGS)


def text_stem(name: str) -> str:
    """Return a file's name without the ending of its format: ``a`` for ``a.txt`` and for ``a.jsonl.gz``."""
    return without_ending(name, _ENDINGS)


def is_hidden(name: str) -> bool:
    """Return whether a relative name, or a folder in it, starts with ``.`` or ``_``, as Hadoop's hidden files do."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def has_wildcard(name: str) -> bool:
    """Return whether a name has ``*``, ``?`` or ``[...]``."""
    return _WILDCARD.search(name) is not None


class Pattern:
    """A pattern that matches relative paths.

    ``*``, ``?``, ``[a-z]`` and ``[!a]`` match within one name of a path. ``**`` matches any number of folders.

    Args:
        pattern: The pattern. If it ends with ``**``, it matches all files at any depth below.
    """

    def __init__(self, pattern: str) -> None:
        parts = pattern.split("/")
        parts += ["*"] * (parts[-1] == "**")
        # None stands for **. `fnmatch` accepts only [!a]; shells also accept [^a].
        self._parts = [
            None if part == "**" else re.compile(fnmatch.translate(part.replace("[^", "[!"))) for part in parts
        ]

    @property
    def is_recursive(self) -> bool:
        """True if the pattern has ``**``."""
        return None in self._parts

    def matches(self, name: str) -> bool:
        """Return whether the pattern matches the relative path `name`."""
        return len(self._parts) in self._positions(name)

    def reaches(self, folder: str) -> bool:
        """Return whether the pattern can match a file in `folder`, at any depth."""
        return any(position < len(self._parts) for position in self._positions(folder))

    def _positions(self, name: str) -> set[int]:
        """Return every n for which the first n parts of the pattern match the whole path `name`.

        The parts of a pattern are what lies between its slashes.
        """
        positions = self._with_empty({0})
        for part in name.split("/"):
            after = set[int]()
            for position in positions - {len(self._parts)}:
                regex = self._parts[position]
                if regex is None:
                    after.add(position)
                elif regex.match(part):
                    after.add(position + 1)
            positions = self._with_empty(after)
        return positions

    def _with_empty(self, positions: set[int]) -> set[int]:
        """Add, in place, the position after each ``**`` in `positions`, because ``**`` can match zero folders."""
        for position in range(len(self._parts)):
            if position in positions and self._parts[position] is None:
                positions.add(position + 1)
        return positions
