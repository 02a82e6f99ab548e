"""Check everything that can be checked before a cluster is created: configuration, corpus, prompts, lake and wheels.

Every error is an `InputError`: one line for the user that names the setting, what is wrong and what to do.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError

from jobs.config import Config, TokenizeConfig, of_run
from jobs.config.effects import Facts, explain_without_effect
from jobs.errors import InputError, counted
from jobs.lake.layout import Lake, Pipeline, Run
from jobs.lake.models import decide_used
from jobs.lake.store import Store
from jobs.lake.uri import base_name, is_s3, to_uri
from jobs.sources.contents import refuse_other_content
from jobs.sources.earlier import inherits
from jobs.sources.fixed_split import check_split, decided_seed
from jobs.sources.inputs import check_inputs, find_used, named_files
from jobs.sources.listing import Listing, Source, list_corpus
from jobs.sources.names import corpus_places
from jobs.sources.utf8 import Utf8Check
from nightjar import aws, settings
from nightjar.packaging.build import SUMS, PackageError
from nightjar.packaging.wheels import Target, check_names, torch_version
from nightjar.tasks import estimate, unchanged
from nightjar.tasks.placement import place
from nightjar.tasks.unchanged import MadeOf

log = logging.getLogger(__name__)

_BAD_URI_CHARACTER = re.compile(r"""[\s\x00-\x1f\x7f"<>\\^`{|}\[\]%#?,*]""")
"""Matches the characters that a lake's URI must not contain: java.net.URI refuses them, spark-submit ends the name
there, or Hadoop decodes them."""
SCAN_BYTES = 64 * 2**20
"""Number of bytes of a corpus that preflight checks to be UTF-8. The step `tokenize` checks the whole corpus."""


@dataclass(frozen=True)
class Prepared:
    """A run whose inputs were checked, with the decision whether it has anything to do."""

    config: Config
    """The run's configuration, as it is in the lake."""
    made_of: MadeOf
    """The hashes of corpus, code and settings. Empty if the run trains no model: such a run is never skipped."""
    same_as: str | None
    """The folder of an earlier successful run with the same hashes, or None. If it is set, this run has nothing to do,
    and `prepare` has written nothing to the lake."""


def prepare(config: Config, run: Run, *, skips_unchanged: bool = False) -> Prepared:
    """Check a run's inputs, and write its configuration to the lake.

    With `skips_unchanged`, a run that would repeat an earlier successful run writes nothing.
    """
    check_can_wait()
    lake, config = Lake(run.lake_uri), place(config)
    with _input_error(f"connection {aws.CONN_ID}: cannot make an EMR client"):
        endpoint_url = aws.emr_client().meta.endpoint_url
    check_reachable(config, lake, endpoint_url)
    check_lake_uri(lake)
    aws.store().check_writable(lake.uri)
    check_wheelhouse(config)
    listing = check_corpus(config, lake.uri) if config.reads_text else Listing([], [], [])
    start = check_files(config, lake)
    if config.trains:
        check_split(config, Pipeline.of(run), aws.store())
    expected = estimate.expect(config, run, listing, start if config.trains else None)
    seed = decided_seed(config, Pipeline.of(run), aws.store())
    facts = Facts("emr", listing.formats, inherits=inherits(run, config, aws.store()), split_seed=seed)
    for line in explain_without_effect(config, config.chosen, facts):
        log.warning("%s", line)
    made_of = unchanged.describe(config, run, listing.sources, settings.load().package_root) if config.trains else {}
    if made_of and skips_unchanged and (same_as := unchanged.find_same(run, made_of, aws.store())):
        return Prepared(config, made_of, same_as)
    config = of_run.claim(run, config, aws.store())
    if config.use.model is not None:
        decide_used(run, config.use.model, aws.store())
    estimate.record(run, expected)
    return Prepared(config, made_of, None)


def check_can_wait() -> None:
    """Check that Airflow has the optional package aiobotocore, which its triggerer needs to wait for EMR steps."""
    if importlib.util.find_spec("aiobotocore") is None:
        raise InputError(
            "Airflow has no aiobotocore, so its triggerer cannot wait for EMR: install"
            " apache-airflow-providers-amazon[aiobotocore]"
        )


def check_wheelhouse(config: Config) -> None:
    """Check that the wheelhouse, if one is set, is complete and fits the cluster's nodes."""
    uri = config.cluster.wheelhouse
    if uri is None:
        return
    with _input_error(f"cluster.wheelhouse: {uri} cannot be read"):
        names = {base_name(file.uri) for file in aws.store().list_files(uri)}
    if SUMS not in names:
        raise InputError(
            f"cluster.wheelhouse: {uri} has no {SUMS}; upload the wheelhouse again with:"
            " make package-wheelhouse LAKE=s3://..."
        )
    root = settings.load().package_root
    locked = (root / "requirements" / "job.txt").read_text("utf-8")
    target = Target(config.cluster.architecture, config.cluster.torch_build)
    try:
        check_names(names - {SUMS}, target, locked, torch_version(root))
    except PackageError as error:
        raise InputError(f"cluster.wheelhouse: {error}") from None


def check_corpus(config: Config, lake_uri: str | None = None) -> Listing:
    """Check that the corpus can be read, is long enough for a window, and begins with UTF-8. Return its files."""
    store = aws.store()
    with _input_error("corpus: cannot be listed"):
        listing = list_corpus(config.corpus, store, lake_uri)
    sources, num_bytes = listing.sources, listing.size
    if num_bytes == 0:
        raise InputError(f"corpus: {config.corpus} is empty; give a file with text")
    if config.trains and num_bytes <= config.windows.size and all(map(_is_plain, sources)):  # tokens are not empty
        raise InputError(
            f"corpus: {config.corpus} has {num_bytes} bytes, too few for one window of {config.windows.size} tokens;"
            " give more text or a smaller windows.size"
        )
    check_contents(sources, store, config.tokenize)
    files = counted(len(sources), "file")
    log.info("Corpus %s: %s, %.1f MB", " ".join(listing.places), files, num_bytes / 1e6)
    if left_out := listing.describe_left_out():
        log.info("Corpus: %s", left_out)
    return listing


def check_contents(
    sources: Sequence[Source],
    store: Store,
    tokenize: TokenizeConfig,
    max_bytes: int = SCAN_BYTES,
    block_bytes: int = 2**20,
) -> None:
    """Check that the first `max_bytes` of a corpus are text, and UTF-8 if `tokenize.invalid_utf8` is `refuse`.

    Compressed files and Parquet files are not checked.
    """
    for source in filter(_is_plain, sources):
        if max_bytes <= 0:
            return
        check, end = Utf8Check(source.uri), min(source.size, max_bytes)
        with _input_error(f"{source.uri}: cannot be read"), store.open_input(source.uri, block_bytes) as file:
            for start in range(0, end, block_bytes):
                block = file.read(min(block_bytes, end - start))
                if start == 0:
                    refuse_other_content(source.uri, source.name, block, tokenize.field)
                if tokenize.invalid_utf8 == "refuse":
                    check.add(block)
        if end == source.size and tokenize.invalid_utf8 == "refuse":
            check.add(b"")
        max_bytes -= end


def check_files(config: Config, lake: Lake) -> str | None:
    """Check all files and models that the settings name, besides the corpus.

    Return the URI of the model that training starts from or that the run uses, or None if there is none.
    """
    with _input_error("a file that the settings name cannot be read"):
        prompts, model = check_inputs(config, lake, aws.store())
    log.info("Prompts: %d", len(prompts))
    return model


def check_lake_uri(lake: Lake) -> None:
    """Check that spark-submit on EMR accepts the lake's URI. The check also applies with the embedded EMR."""
    refused = sorted(set(_BAD_URI_CHARACTER.findall(lake.uri))) if is_s3(lake.uri) else []
    if refused:
        shown = " ".join(repr(character) for character in refused)
        raise InputError(
            f"NIGHTJAR_LAKE: {lake.uri} has {shown}; spark-submit on EMR refuses such a URI or changes it; use only"
            " letters, digits and - _ . /"
        )


def check_reachable(config: Config, lake: Lake, emr_endpoint_url: str) -> None:
    """Check that a cluster on AWS can reach the lake, the corpus, and all files that the settings name."""
    if not aws.is_on_aws(emr_endpoint_url):
        return
    uris = [("NIGHTJAR_LAKE", lake.uri)]
    if config.reads_text:
        uris += (("corpus", uri) for uri in corpus_places(config.corpus))
    uris += named_files(config)
    if config.generate.prompts_file and "generate" in config.steps:
        uris.append(("generate.prompts_file", to_uri(config.generate.prompts_file)))
    if not config.trains:
        uris.append(("use.model", find_used(config, lake, aws.store())))
    elif "/" in (config.train.init or ""):
        uris.append(("train.init", to_uri(str(config.train.init))))
    for setting, uri in uris:
        if not is_s3(uri):
            raise InputError(f"{setting}: a cluster on AWS cannot read {uri}; upload it to s3://bucket/prefix")


def _is_plain(source: Source) -> bool:
    """Return whether a file contains plain text: it is not compressed and not a Parquet file."""
    return source.format != "parquet" and source.compression is None


@contextmanager
def _input_error(message: str) -> Iterator[None]:
    """Convert an error from the disk or from AWS into an `InputError` whose message starts with `message`."""
    try:
        yield
    except (OSError, BotoCoreError) as error:
        raise InputError(f"{message} ({str(error).splitlines()[0]})") from None
