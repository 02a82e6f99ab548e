"""The files of a corpus, in canonical order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from jobs.errors import InputError
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import base_name, relative_name
from jobs.sources.names import corpus_places, glob_of, is_hidden, text_format


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a corpus. Its name, relative to the corpus, decides its format; a corpus can be moved."""

    name: str
    uri: str
    size: int
    body: tuple[int, int] | None = None
    """Start and end of its text, where a header and a footer are left out."""

    @property
    def format(self) -> str:
        """``txt``, ``jsonl`` or ``parquet``. A file with any other name is text."""
        return (text_format(self.name) or ("txt", None))[0]

    @property
    def compression(self) -> str | None:
        """``gz``, ``bz2``, ``zst`` or None."""
        return (text_format(self.name) or ("txt", None))[1]


def list_sources(corpus: str, store: Store = ENVIRONMENT) -> list[Source]:
    """Return the files of a corpus, sorted by name.

    A corpus consists of places: files, folders and patterns. A named file, or one that a pattern matches, is taken
    whatever its name. In a folder, files at any depth are taken if their names say that they are text. Hidden names in
    folders and patterns are skipped. Names are relative to the place; with several places, they start with the name of
    the place. A place without files is refused, and so are two files with the same name.
    """
    places = corpus_places(corpus)
    found: dict[str, Source] = {}
    for place in places:
        with named_errors(place):
            folder, sources = _sources_of(place, store)
        for source in sources:
            is_named_so = len(places) == 1 or source.name == base_name(place)
            name = source.name if is_named_so else f"{folder}/{source.name}"
            other = found.setdefault(name, replace(source, name=name))
            if other.uri != source.uri:
                raise InputError(f"{source.uri} and {other.uri}: both are named {name} in the corpus; rename one")
    return sorted(found.values(), key=lambda source: source.name)


@contextmanager
def named_errors(uri: str) -> Iterator[None]:
    """Raise InputError if the file system refuses to read `uri`."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{uri}: cannot be read ({reason}); check the corpus") from None


def _sources_of(place: str, store: Store) -> tuple[str, list[Source]]:
    """Return the files of a place, named relative to its folder, and the name of that folder."""
    if file := store.info(place):
        return base_name(place), [Source(base_name(place), place, file.size)]
    pattern = glob_of(place)
    folder = pattern[0] if pattern else place
    listed = [Source(relative_name(file.uri, folder), file.uri, file.size) for file in store.list_files(folder)]
    if not listed:
        raise InputError(
            f"{place}: no file there, and no folder with files; give the path or URI of a text file or folder"
        )
    wanted = [
        source
        for source in listed
        if not is_hidden(source.name) and (pattern[1].match(source.name) if pattern else text_format(source.name))
    ]
    if not wanted and pattern:
        raise InputError(f"{place}: none of the {len(listed)} files in {folder} matches this pattern")
    if not wanted:
        raise InputError(
            f"{place}: none of its {len(listed)} files is named *.txt, *.jsonl or *.parquet, alone or with .gz, .bz2 or"
            " .zst; give such a file, or a folder with such files"
        )
    return base_name(folder), wanted
