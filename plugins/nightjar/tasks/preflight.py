"""What can be known before a cluster exists: is the configuration right, is there text, can the lake be written to.

Every error is one line for the user: what, where, what to do.
"""

from __future__ import annotations

import codecs
import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from botocore.exceptions import BotoCoreError, ClientError

from jobs.config import Config
from jobs.config.prompts import read_prompts
from jobs.errors import InputError
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import is_s3, join, to_uri
from jobs.sources.names import corpus_places, glob_of, is_hidden, text_format
from nightjar import aws, settings
from nightjar.packaging.build import SUMS, PackageError
from nightjar.packaging.wheels import Target, check_names, torch_version
from nightjar.storage import StoredFile, open_storage

log = logging.getLogger(__name__)

SCAN_BYTES = 64 * 2**20
"""So much of a corpus is looked at; the step that reads all of it looks at the rest."""
_CHUNK_BYTES = 2**20


def prepare(config: Config, run: Run) -> Config:
    """Check what a run needs, write its configuration, and return what stands there.

    Raises:
        InputError: saying in one line what is wrong.
    """
    lake = Lake(run.lake_uri)
    with _named(f"connection {aws.CONN_ID}: no client of EMR"):
        endpoint_url = aws.emr_client().meta.endpoint_url
    check_reach(config, lake, endpoint_url)
    check_lake(lake)
    check_wheelhouse(config)
    check_corpus(config)
    check_prompts(config)
    return publish_config(config, run)


def publish_config(config: Config, run: Run) -> Config:
    """Write the run's configuration once, and return what stands there: a run that is cleared keeps its own."""
    storage = open_storage(run.uri)
    if storage.publish(run.config, config.to_json().encode()):
        return config
    stored = Config.from_json(storage.read(run.config).decode(), run.config)
    if stored != config:
        log.warning("This run has a configuration already and keeps it: %s", run.config)
    return stored


def check_lake(lake: Lake) -> None:
    """Write and delete a small file.

    Raises:
        InputError: if that cannot be done.
    """
    probe = join(lake.uri, f".write-test-{uuid.uuid4().hex[:8]}")
    with _named(f"NIGHTJAR_LAKE: {lake.uri} cannot be written to"):
        storage = open_storage(probe)
        storage.write(probe, b"")
        storage.delete(probe)


def check_wheelhouse(config: Config) -> None:
    """Check that the wheels which nodes install from are all there, and fit the nodes that were chosen.

    Raises:
        InputError: naming the wheel that does not fit or is missing.
    """
    place = config.cluster.wheelhouse
    if place is None:
        return
    with _named(f"cluster.wheelhouse: {place} cannot be read"):
        names = {file.name for file in open_storage(place).list_files(place)}
    if SUMS not in names:
        raise InputError(f"cluster.wheelhouse: {place} holds no {SUMS}; upload it again (make package-wheelhouse)")
    root = settings.load().package_root
    locked = (root / "requirements" / "job.txt").read_text("utf-8")
    target = Target(config.cluster.architecture, config.cluster.torch_build)
    try:
        check_names(names - {SUMS}, target, locked, torch_version(root))
    except PackageError as error:
        raise InputError(f"cluster.wheelhouse: {error}") from None


def check_corpus(config: Config) -> None:
    """Check that the corpus exists, is readable, long enough for a window, and begins with UTF-8.

    Raises:
        InputError: naming the file, and the offset of a byte that is not UTF-8.
    """
    places = corpus_places(config.corpus)
    found = [_text_files(place) for place in places]
    num_bytes = sum(file.size for files in found for file in files)
    if num_bytes == 0:
        raise InputError(f"corpus: {config.corpus} is empty; give a file with text")
    packed = any(_is_packed(file) for files in found for file in files)
    if num_bytes <= config.windows.size and not packed:  # a token has at least one byte
        raise InputError(
            f"corpus: {config.corpus} has {num_bytes} bytes, too few for one window of"
            f" {config.windows.size} tokens; give more text or a smaller windows.size"
        )
    if config.tokenize.invalid_utf8 == "refuse":
        _check_text([file for files in found for file in files])
    log.info("Corpus %s: %d files, %.1f MB", " ".join(places), sum(map(len, found)), num_bytes / 1e6)


def check_prompts(config: Config) -> None:
    """Check that there are prompts, though the step that reads them is the last.

    Raises:
        InputError: if the file that `generate.prompts_file` names cannot be read, or holds no prompt.
    """
    with _named(f"generate.prompts_file: {config.generate.prompts_file} cannot be read"):
        prompts = read_prompts(config.generate, lambda uri: open_storage(uri).read(uri))
    log.info("%d prompts", len(prompts))


def check_reach(config: Config, lake: Lake, emr_endpoint_url: str) -> None:
    """Refuse local files where the cluster is on AWS and could not see them.

    Raises:
        InputError: naming the setting that is local.
    """
    if "amazonaws.com" not in emr_endpoint_url:
        return
    places = [("NIGHTJAR_LAKE", lake.uri), *(("corpus", place) for place in corpus_places(config.corpus))]
    if config.generate.prompts_file:
        places.append(("generate.prompts_file", to_uri(config.generate.prompts_file)))
    for name, uri in places:
        if not is_s3(uri):
            raise InputError(f"{name}: a cluster on AWS cannot see {uri}; upload it and give s3://bucket/prefix")


def _text_files(place: str) -> list[StoredFile]:
    """The files of one place of a corpus, as the tokenize step will list them."""
    storage = open_storage(place)
    with _named(f"corpus: {place} cannot be read"):
        found = storage.list_files(place)
        if len(found) == 1 and found[0].uri == place:
            return found
        pattern = None if found else glob_of(place)
        if pattern:
            found = [file for file in storage.list_files(pattern[0]) if pattern[1].match(file.name)]
    if not found:
        raise InputError(f"corpus: {place} does not exist or is an empty folder; give a file, folder or pattern")
    texts = [file for file in found if not is_hidden(file.name) and (pattern or text_format(file.name))]
    if not texts:
        raise InputError(f"corpus: {place} holds no .txt, .jsonl or .parquet file; give a file or a folder of them")
    return texts


def _is_packed(file: StoredFile) -> bool:
    """Whether a file's bytes are not the text itself."""
    return (text_format(file.name) or ("txt", None)) not in (("txt", None), ("jsonl", None))


def _check_text(files: Sequence[StoredFile]) -> None:
    budget = SCAN_BYTES
    for file in files:
        if budget > 0 and not _is_packed(file):
            with _named(f"corpus: {file.uri} cannot be read"), open_storage(file.uri).open(file.uri) as stream:
                budget -= _check_utf8(stream, file, budget)


def _check_utf8(stream: IO[bytes], file: StoredFile, budget: int) -> int:
    """Read at most `budget` bytes; return how many."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    while position < budget:
        chunk = stream.read(min(_CHUNK_BYTES, budget - position))
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            offset = position - pending + error.start
            raise InputError(f"corpus: {file.uri} is not UTF-8 at byte {offset}; convert it to UTF-8") from None
        if not chunk:
            break
        position += len(chunk)
    return position


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Turns what a disk or AWS complains of into a user's error that starts with `what`."""
    try:
        yield
    except (OSError, BotoCoreError, ClientError) as error:
        raise InputError(f"{what} ({str(error).splitlines()[0]})") from None
