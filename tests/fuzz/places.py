"""Places: trees of folders with odd names, links and special files, and the paths, URIs and patterns that name them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from random import Random

from jobs.lake.uri import join, local_path, to_uri
from jobs.sources.listing import list_corpus
from jobs.sources.names import to_corpus
from tests.fuzz.registry import Case, family

_NAMES = (
    *(
        b"a.txt",
        b"b.jsonl.gz",
        b"C.TXT",
        b"part-r-00000",
        b"_SUCCESS",
        b".hidden.txt",
        b"data [v1]",
        b"what?",
        b"*.txt",
    ),
    *(
        b"caf\xe9.txt",
        b"\xff",
        "夜.txt".encode(),
        b"a b.txt",
        b"a#1.txt",
        b"a%41.txt",
        b"[z-a].txt",
        b"-.txt",
        b"~",
        b"sub",
    ),
    *(b"new\nline.txt", b"'quoted'.txt", b"\\.txt", b"x.parquet", b"lake", b"**"),
)
_PATTERNS = (
    *(
        "*",
        "**",
        "*.txt",
        "**/*.txt",
        "?",
        "[z-a]",
        "[!a]*",
        "[",
        "[]",
        "[a",
        "a]",
        "**/**/*",
        "*/",
        "/",
        "//",
        "..",
        ".",
    ),
    *("sub/*", "data [v1]", "data [v1]/*", "[^a]*.txt", "{a,b}.txt", "none", "\ud800", "\0", "x" * 300, "a/" * 2100),
)


def _fill(rng: Random, folder: Path, depth: int = 0) -> None:
    for name in rng.sample(_NAMES, rng.randint(0, 7)):
        path = folder / os.fsdecode(name)
        kind = rng.choice(("file", "file", "file", "folder", "folder", "link", "pipe", "nowhere", "itself", "locked"))
        with suppress(FileExistsError):
            if kind == "folder" and depth < 3:
                path.mkdir()
                _fill(rng, path, depth + 1)
            elif kind == "link":
                path.symlink_to(rng.choice((".", "..", "../..", "a.txt", "sub", "sub/..", "/dev/null")))
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind in ("nowhere", "itself"):
                path.symlink_to("missing" if kind == "nowhere" else path.name)
            else:
                path.write_bytes(b"text")
                path.chmod(0 if kind == "locked" else 0o644)


def _place(rng: Random, folder: Path) -> str:
    paths = [folder, *folder.rglob("*")]
    path = rng.choice(paths)
    form = rng.choice(("path", "uri", "pattern", "pattern", "inner", "relative", "raw"))
    if form == "uri":
        return path.as_uri()
    if form == "pattern":
        return f"{path}/{rng.choice(_PATTERNS)}"
    if form == "inner":
        return join(folder.as_uri(), rng.choice(("sub", "none", "data [v1]"))) + "/*"
    if form == "relative":
        return os.path.relpath(path, folder)
    if form == "raw":
        return rng.choice(
            (*_PATTERNS, "file://x/y", "file:", "http://x/y", "s3://", "s3:///x", "~nobody/x", "", " ", "\n")
        )
    return str(path)


@family("places")
def _places(rng: Random, folder: Path) -> Case:
    """A listing of one to three places; each file is listed once, by a name of its own."""
    folder = folder / "1/2/3/4/5"  # so that links to folders above do not leave it
    folder.mkdir(parents=True)
    _fill(rng, folder)
    places = [_place(rng, folder) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    corpus = json.dumps(places) if rng.random() < 0.2 else "\n".join(places)

    def run() -> None:
        listing = list_corpus(to_corpus(corpus), lake_uri=to_uri(str(folder / "lake")))
        names = [source.name for source in listing.sources]
        assert names == sorted(set(names)), "a name twice, or not in order"
        files = [os.path.realpath(local_path(source.uri)) for source in listing.sources]
        assert len(set(files)) == len(files), "a file twice"
        listing.describe_left_out().encode()

    return Case(f"{places!r} of {sorted(os.fsencode(path.relative_to(folder)) for path in folder.rglob('*'))}", run)
