"""Lists the files of a corpus, in canonical order."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from jobs.errors import InputError, counted, shorten
from jobs.lake.forgotten import hashes_of, read_forgotten
from jobs.lake.layout import LAKE_FOLDERS, Lake
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.uri import base_name, is_s3, local_path, relative_name
from jobs.sources.names import NAMES_WITH_TEXT, Pattern, corpus_places, has_wildcard, is_hidden, text_format

_SHOWN_NAMES = 5
_REFUSED = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_REFUSED_CODES = {errno.ENODEV, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO}


class Mark(NamedTuple):
    """A mark of Project Gutenberg: the bytes [begin, end) of a file that show where a book begins or ends.

    The other fields say whether to keep the text before the mark, the mark itself, and the text after it.
    """

    begin: int
    end: int
    keeps_before: bool
    keeps_line: bool
    keeps_after: bool


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a corpus.

    The name is relative to the corpus, so that a corpus can be moved. The ending of the name decides the format.
    """

    name: str
    uri: str
    size: int
    modified_at: float = field(default=0.0, compare=False)
    """Time of the last change, in seconds since 1970. 0 if the time is not known."""
    marks: tuple[Mark, ...] | None = None
    """The marks of Project Gutenberg in the file. None if the file was not searched (see `tokenize.drop_gutenberg`)."""
    forgotten: tuple[int, ...] = field(default=(), compare=False)
    """The hashes of all forgotten documents of the lake. Readers of the file leave these documents out."""

    @property
    def format(self) -> str:
        """``txt``, ``jsonl`` or ``parquet``. A file whose name shows no format is ``txt``."""
        return (text_format(self.name) or ("txt", None))[0]

    @property
    def compression(self) -> str | None:
        """``gz``, ``bz2``, ``xz``, ``zst`` or None."""
        return (text_format(self.name) or ("txt", None))[1]


@dataclass(frozen=True)
class Listing:
    """The files of a corpus, sorted by name, and the names of the files and folders that were left out."""

    places: list[str]
    sources: list[Source]
    left_out: list[str]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(source.size for source in self.sources)

    @property
    def formats(self) -> frozenset[str]:
        """The formats of the files: ``txt``, ``jsonl``, ``parquet``."""
        return frozenset(source.format for source in self.sources)

    @property
    def first_left_out(self) -> list[str]:
        """The first five names that were left out, shortened for a message."""
        return [shorten(name) for name in self.left_out[:_SHOWN_NAMES]]

    def describe_left_out(self) -> str:
        """Return a text that says how many names were left out, with the first five. Return "" if there are none."""
        if not self.left_out:
            return ""
        shown = ", ".join(self.first_left_out) + (", ..." if len(self.left_out) > _SHOWN_NAMES else "")
        return (
            f"{len(self.left_out):,} files or folders left out (hidden, not named as text files, or part of the lake):"
            f" {shown}"
        )


@dataclass
class _Place:
    """A place of a corpus, and the files in it."""

    uri: str
    folder: str
    """The URI of the folder that contains all files of the place."""
    files: list[Source]
    """The files. Their names are relative to `folder`."""
    identities: dict[str, Any]
    """A dict from a file's URI to a value that is equal for two links to one file. None if this value is not known."""
    left_out: list[str] = field(default_factory=list)
    depth: int = 0
    """How many folder names are put in front of the names of files: the last `depth` names in `parents`."""

    @property
    def is_file(self) -> bool:
        """True if the place is a file."""
        return [source.uri for source in self.files] == [self.uri]

    @property
    def parents(self) -> list[str]:
        """The names of `folder` and of all folders above it, the topmost first."""
        path = self.folder.removeprefix("s3://") if is_s3(self.folder) else local_path(self.folder).as_posix()
        return [part for part in path.split("/") if part]

    def name(self, source: Source) -> str:
        """Return the name that a file of this place has in the corpus."""
        above = self.parents[-self.depth :] if self.depth else []
        return "/".join([*above, source.name])


def list_corpus(corpus: str, store: Store = ENVIRONMENT, lake_uri: str | None = None) -> Listing:
    """Return the files of a corpus.

    A corpus consists of places: files, folders and patterns. A place that exists is never a pattern. A file that is a
    place, or that a pattern matches, is taken whatever its name. In a folder, files at any depth are taken if their
    names are those of text files. Hidden files and folders below a folder or pattern are left out, and so is the lake
    at `lake_uri`. A file with several names (links, or overlapping places) is listed once. Each source gets the hashes
    of the lake's forgotten documents.

    The name of a file is its path relative to its place. If there are several places, the name of the place's folder
    is put in front, unless the place is a file. If two names are equal, names of folders above are put in front, too.

    Raises:
        InputError: if a place has no files, or cannot be read.
    """
    places = []
    for uri in corpus_places(corpus):
        with named_errors(uri):
            places.append(_list_place(uri, store, lake_uri))
    if len(places) > 1:
        for place in places:
            place.depth = 0 if place.is_file else 1
    _drop_repeated(places)
    _make_unique(places)
    forgotten = hashes_of(read_forgotten(Lake(lake_uri), store)) if lake_uri else ()
    sources = [
        replace(source, name=place.name(source), forgotten=forgotten) for place in places for source in place.files
    ]
    left_out = sorted({name for place in places for name in place.left_out})
    return Listing([place.uri for place in places], sorted(sources, key=lambda source: source.name), left_out)


def list_sources(corpus: str, store: Store = ENVIRONMENT) -> list[Source]:
    """Return the files that `list_corpus` finds in a corpus, sorted by name."""
    return list_corpus(corpus, store).sources


@contextmanager
def named_errors(uri: str) -> Iterator[None]:
    """Turn an OSError that says that `uri` cannot be read (missing, not permitted) into an InputError."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, _REFUSED) and error.errno not in _REFUSED_CODES:
            raise
        reason = error.strerror or str(error)
        if error.filename and Path(error.filename).name != base_name(uri):
            reason += f": {error.filename}"
        raise InputError(f"{shorten(uri, 500)}: cannot be read ({shorten(reason)}); check the corpus") from None


def _list_place(uri: str, store: Store, lake_uri: str | None) -> _Place:
    if file := store.info(uri):
        return _Place(
            uri,
            uri.rpartition("/")[0],
            [Source(base_name(uri), uri, file.size, file.modified_at)],
            {uri: file.identity},
        )
    if _is_special(uri):
        raise InputError(f"{uri}: is a pipe, a socket or a device, not a file; write its content to a file")
    folder, pattern = _split_pattern(uri, store)
    others, left_out = list[str](), list[str]()
    of_lake = _lake_folders(lake_uri, folder) if lake_uri else ()

    def reaches(name: str) -> bool:
        if pattern is not None and not pattern.reaches(name):
            return False
        is_left_out = is_hidden(name) or name in of_lake
        left_out.extend([f"{name}/"] * is_left_out)
        return not is_left_out

    # S3 lists a whole folder in fewer requests than its folders one by one.
    is_flat = is_s3(folder) and (pattern is None or pattern.is_recursive)
    files = store.list_files(folder, None if is_flat else reaches, others)
    place = _Place(uri, folder, [], {file.uri: file.identity for file in files}, left_out)
    for file in files:
        name = relative_name(file.uri, folder)
        if pattern is not None and not pattern.matches(name):
            continue
        is_in_lake = name.startswith(tuple(f"{inner}/" for inner in of_lake))
        if is_hidden(name) or is_in_lake or not (pattern or text_format(name)):
            left_out.append(name)
        else:
            place.files.append(Source(name, file.uri, file.size, file.modified_at))
    names = [relative_name(other, folder) for other in others]
    left_out += [name for name in names if pattern is None or pattern.matches(name)]
    if not place.files:
        raise InputError(_nothing_found(place, pattern, len(files)))
    return place


def _lake_folders(lake_uri: str, folder: str) -> tuple[str, ...]:
    """Return the paths, relative to `folder`, of the folders below `folder` that belong to the lake at `lake_uri`.

    If the lake is below `folder`, this is one path: that of the lake. If `folder` is the lake, these are the paths of
    the lake's own folders. In all other cases, return no path.
    """
    if is_s3(lake_uri) != is_s3(folder):
        return ()
    if is_s3(folder):
        is_below = f"{lake_uri}/".startswith(f"{folder}/")
        name = relative_name(lake_uri, folder) if lake_uri != folder else "."
    else:
        name = os.path.relpath(os.path.realpath(local_path(lake_uri)), os.path.realpath(local_path(folder)))
        is_below = name.split("/")[0] != ".."
    if not is_below:
        return ()
    return LAKE_FOLDERS if name == "." else (name,)


def _nothing_found(place: _Place, pattern: Pattern | None, num_files: int) -> str:
    uri, folder = shorten(place.uri, 500), shorten(place.folder, 500)
    if pattern is not None:
        found = f"none of the {counted(num_files, 'file')} in {folder}" if num_files else "no file there"
        return f"{uri}: {found} matches this pattern; to match files in folders, end the pattern in /** or in /*.txt"
    if not num_files and place.left_out:
        return f"{uri}: no file there that can be read, only {shorten(', '.join(place.left_out))}; give a text file"
    if num_files:
        of_them = f"none of its {num_files:,} files" if num_files > 1 else "its only file"
        is_named = "is named" if num_files > 1 else "is not named"
        return f"{uri}: {of_them} {is_named} {NAMES_WITH_TEXT}; give such a file, or a folder of them"
    return f"{uri}: no file there, and no folder with files; give the path or URI of a text file or folder"


def _is_special(uri: str) -> bool:
    """Return whether a local path is a pipe, a socket or a device: it exists, but is not a file or folder."""
    if is_s3(uri):
        return False
    try:
        mode = local_path(uri).stat().st_mode
    except OSError:
        return False
    return not stat.S_ISDIR(mode) and not stat.S_ISREG(mode)


def _split_pattern(uri: str, store: Store) -> tuple[str, Pattern | None]:
    """Split `uri` at its first wildcard: return the folder above the wildcard, and the rest as a pattern.

    If `uri` has no wildcard, return `uri` and None. Wildcard characters in the name of an existing folder are not
    wildcards.
    """
    parts = uri.split("/")
    for number in range(3, len(parts)):  # after file:/// or s3://bucket/
        part = parts[number] if is_s3(uri) else unquote(parts[number])
        if has_wildcard(part) and not store.is_folder("/".join(parts[: number + 1])):
            folder = "/".join(parts[:number]) if is_s3(uri) or number > 3 else "file:///"
            return folder, Pattern(relative_name(uri, folder))
    return uri, None


def _drop_repeated(places: Sequence[_Place]) -> None:
    """Keep one name of each file, and drop the others.

    The first name whose path has no symbolic link is kept. If all paths have one, the first name is kept.
    """
    kept: dict[Any, tuple[_Place, Source]] = {}
    for place in places:
        for source in place.files:
            key = place.identities.get(source.uri) or source.uri
            if key not in kept or (_is_link(kept[key][1].uri) and not _is_link(source.uri)):
                kept[key] = (place, source)
    chosen = {(id(place), source.uri) for place, source in kept.values()}
    for place in places:
        place.files = [source for source in place.files if (id(place), source.uri) in chosen]


def _is_link(uri: str) -> bool:
    """Return whether a local path has a symbolic link in it."""
    return not is_s3(uri) and os.path.realpath(local_path(uri)) != os.fspath(local_path(uri))


def _make_unique(places: Sequence[_Place]) -> None:
    """Put more folder names in front of the names of files until no two files have the same name."""
    while True:
        owners: dict[str, tuple[_Place, Source]] = {}
        clashes: list[_Place] = []
        for place in places:
            for source in place.files:
                owner, other = owners.setdefault(place.name(source), (place, source))
                if owner is not place:
                    clashes += [place, owner]
                    clash = f"{other.uri} and {source.uri}: both are named {place.name(source)} in the corpus"
        if not clashes:
            return
        higher = {id(place): place for place in clashes if place.depth < len(place.parents)}
        if not higher:
            raise InputError(f"{clash}; rename one of them")
        for place in higher.values():
            place.depth += 1
