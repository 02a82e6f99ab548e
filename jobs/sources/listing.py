"""A corpus is text files, folders of them, or patterns: which files, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.store import FileInfo
from jobs.lake.uri import base_name, is_s3, join, local_path
from jobs.sources.names import corpus_places, glob_of, is_hidden, text_format


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a corpus. `name` is relative to the corpus, so a corpus may be moved; it tells the format."""

    name: str
    uri: str
    size: int
    body: tuple[int, int] | None = None
    """Where its text begins and ends, if it has a header and footer that are to be left out."""

    @property
    def format(self) -> str:
        """``txt``, ``jsonl`` or ``parquet``; a file of any other name is text."""
        return (text_format(self.name) or ("txt", None))[0]

    @property
    def compression(self) -> str | None:
        """``gz``, ``bz2``, ``zst`` or None."""
        return (text_format(self.name) or ("txt", None))[1]


def list_sources(corpus: str) -> list[Source]:
    """The files of a corpus in canonical order: by name, whatever the order of the listing or of the places.

    A file that is named, or that a pattern matches, is taken whatever its name. Of a folder, the files at any depth
    whose name tells a format of text are taken. Of folders and patterns, hidden names are skipped. Names are relative
    to the place; where there are several places, they start with the place's own name.

    Raises:
        InputError: if a place has no such file, or two files have one name.
    """
    places = corpus_places(corpus)
    found: dict[str, Source] = {}
    for place in places:
        for name, info in _files_of(place):
            full_name = name if len(places) == 1 or name == base_name(place) else f"{_folder_name(place)}/{name}"
            source = found.setdefault(full_name, Source(full_name, info.uri, info.size))
            if source.uri != info.uri:
                raise InputError(f"{info.uri} and {source.uri}: both are named {full_name} in the corpus; rename one")
    return sorted(found.values(), key=lambda source: source.name)


def _files_of(place: str) -> Iterator[tuple[str, FileInfo]]:
    """Name and file of what a place holds."""
    if store.exists(place):
        with named_errors(place), store.open_input(place) as file:
            yield base_name(place), FileInfo(place, file.size())
        return
    pattern = glob_of(place)
    folder = pattern[0] if pattern else place
    with named_errors(place):
        named = [(_relative(folder, info.uri), info) for info in store.list_files(folder)]
    if not named:
        raise InputError(f"{place}: no file there, and no folder with files; give the corpus as a path or URI of text")
    wanted = [
        (name, info)
        for name, info in named
        if not is_hidden(name) and (pattern[1].match(name) if pattern else text_format(name))
    ]
    if not wanted and pattern:
        raise InputError(f"{place}: none of the {len(named)} files in {folder} matches this pattern")
    if not wanted:
        raise InputError(
            f"{place}: none of its {len(named)} files is named *.txt, *.jsonl or *.parquet (or so with .gz, .bz2,"
            " .zst); give a file or a folder of such files"
        )
    yield from wanted


def _folder_name(place: str) -> str:
    pattern = glob_of(place)
    return base_name(pattern[0] if pattern and not store.exists(place) else place)


def _relative(folder_uri: str, uri: str) -> str:
    if is_s3(uri):
        return uri.removeprefix(join(folder_uri, ""))
    return local_path(uri).relative_to(local_path(folder_uri)).as_posix()


@contextmanager
def named_errors(uri: str) -> Iterator[None]:
    """Turn what a file system says of a file that it will not give into a user's error."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{uri}: cannot be read ({reason})") from None
