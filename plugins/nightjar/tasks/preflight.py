"""Check everything that can be checked before a cluster is created: configuration, corpus, prompts, lake and wheels.

Every error is one line for the user that names the setting, what is wrong and what to do.
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
    """Check a run's inputs, write its configuration to the lake, and return the configuration in the lake.

    Raises:
        InputError: if a setting or an input is wrong.
    """
    lake = Lake(run.lake_uri)
    with _input_error(f"connection {aws.CONN_ID}: cannot make an EMR client"):
        endpoint_url = aws.emr_client().meta.endpoint_url
    check_reachable(config, lake, endpoint_url)
    check_lake(lake)
    check_wheelhouse(config)
    check_corpus(config)
    check_prompts(config)
    return publish_config(config, run)


def publish_config(config: Config, run: Run) -> Config:
    """Write the run's configuration unless it has one, and return the one in the lake. A cleared run keeps its own."""
    storage = open_storage(run.uri)
    if storage.publish(run.config, config.to_json().encode()):
        return config
    stored = Config.from_json(storage.read(run.config).decode(), run.config)
    if stored != config:
        log.warning("The trigger form is ignored: this run keeps its configuration in %s", run.config)
    return stored


def check_lake(lake: Lake) -> None:
    """Check that the lake can be written to, by writing and deleting a small file.

    Raises:
        InputError: if it cannot be written to.
    """
    probe = join(lake.uri, f".write-test-{uuid.uuid4().hex[:8]}")
    with _input_error(f"NIGHTJAR_LAKE: {lake.uri} cannot be written to"):
        storage = open_storage(probe)
        storage.write(probe, b"")
        storage.delete(probe)


def check_wheelhouse(config: Config) -> None:
    """Check that the wheelhouse, if one is set, is complete and fits the cluster's nodes.

    Raises:
        InputError: if a wheel is missing or does not fit.
    """
    uri = config.cluster.wheelhouse
    if uri is None:
        return
    with _input_error(f"cluster.wheelhouse: {uri} cannot be read"):
        names = {file.name for file in open_storage(uri).list_files(uri)}
    if SUMS not in names:
        raise InputError(f"cluster.wheelhouse: {uri} has no {SUMS}; upload it again (make package-wheelhouse)")
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
    """Check that the prompts can be read. Only the last step of a run uses them.

    Raises:
        InputError: if the file `generate.prompts_file` cannot be read or has no prompt.
    """
    with _input_error(f"generate.prompts_file: {config.generate.prompts_file} cannot be read"):
        prompts = read_prompts(config.generate, lambda uri: open_storage(uri).read(uri))
    log.info("Prompts: %d", len(prompts))


def check_reachable(config: Config, lake: Lake, emr_endpoint_url: str) -> None:
    """Check that a cluster on AWS can reach the lake, the corpus and the prompts.

    Raises:
        InputError: if one of them is a local path.
    """
    if "amazonaws.com" not in emr_endpoint_url:
        return
    uris = [("NIGHTJAR_LAKE", lake.uri), *(("corpus", uri) for uri in corpus_places(config.corpus))]
    if config.generate.prompts_file:
        uris.append(("generate.prompts_file", to_uri(config.generate.prompts_file)))
    for setting, uri in uris:
        if not is_s3(uri):
            raise InputError(f"{setting}: a cluster on AWS cannot read {uri}; upload it to s3://bucket/prefix")


def _text_files(place: str) -> list[StoredFile]:
    """The files of one place of a corpus, as the tokenize step will list them."""
    storage = open_storage(place)
    with _input_error(f"corpus: {place} cannot be read"):
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
            with _input_error(f"corpus: {file.uri} cannot be read"), open_storage(file.uri).open(file.uri) as stream:
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
def _input_error(message: str) -> Iterator[None]:
    """Convert an error of the disk or of AWS into an `InputError` whose message starts with `message`."""
    try:
        yield
    except (OSError, BotoCoreError, ClientError) as error:
        raise InputError(f"{message} ({str(error).splitlines()[0]})") from None
