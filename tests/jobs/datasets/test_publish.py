"""A dataset is made once, published with its statistics, and recorded in each run that uses it."""

import pytest

from jobs.datasets.publish import MadeDataset, find_or_make
from jobs.datasets.tokens import TokensDataset
from jobs.errors import DamagedError, InputError
from jobs.lake.cache import verified_file
from jobs.lake.layout import Lake
from jobs.lake.runs import used_datasets
from jobs.lake.store import (
    FileEntry,
    info,
    list_files,
    read_manifest,
    write_bytes,
    write_file,
)
from jobs.lake.uri import join, to_uri
from tests.support.handmade import train_tokenizer


@pytest.fixture
def lake(tmp_path):
    return Lake(to_uri(str(tmp_path / "my läke")))


def made(folder_uri, files=("a.bin",), **measured):
    entries = [write_file(folder_uri, name, b"content") for name in files]
    return MadeDataset(entries, {"num_things": 7}, {"from": "x"}, measured)


def fail(folder_uri):
    raise AssertionError("the dataset exists")


def test_a_dataset_is_made_once(lake):
    first, second = lake.run("first"), lake.run("second")
    stats = find_or_make(first, "tokens", "f", lambda folder: made(folder, seconds=1.5))
    assert stats == {"num_things": 7, "reused": False, "seconds": 1.5}
    manifest = read_manifest(lake.dataset("tokens", "f"))
    assert (manifest.kind, manifest.fingerprint, manifest.inputs) == ("tokens", "f", {"from": "x"})
    assert [entry.name for entry in manifest.files] == ["a.bin", "stats.json"]
    assert manifest.counts == {"num_things": 7}
    assert find_or_make(second, "tokens", "f", fail) == {"num_things": 7, "reused": True}
    assert used_datasets(first) == used_datasets(second) == {"tokens": "f"}


def test_an_attempt_that_publishes_second_succeeds(lake):
    def publish_twice(folder):
        find_or_make(lake.run("other"), "windows", "f", lambda folder: made(folder, ["first.bin"]))
        return made(folder, ["second.bin"])

    assert not find_or_make(lake.run("r"), "windows", "f", publish_twice)["reused"]
    manifest = read_manifest(lake.dataset("windows", "f"))
    assert manifest.entries("first.bin")
    assert not manifest.entries("second.bin")
    assert all(verified_file(lake.dataset("windows", "f"), entry) for entry in manifest.files)


def test_other_tokens_remove_the_datasets_that_were_made_of_the_old_ones(lake):
    run = lake.run("r")
    for kind in ("tokens", "windows", "embeddings"):
        find_or_make(run, kind, "old", made)
    before = info(run.datasets)
    find_or_make(run, "tokens", "old", fail)
    assert used_datasets(run) == {"tokens": "old", "windows": "old", "embeddings": "old"}
    assert info(run.datasets) == before
    find_or_make(run, "windows", "new", made)
    assert used_datasets(run) == {"tokens": "old", "windows": "new", "embeddings": "old"}
    find_or_make(run, "tokens", "new", made)
    assert used_datasets(run) == {"tokens": "new"}


def test_a_failure_publishes_and_records_nothing(lake):
    def stop(folder):
        raise InputError("no text")

    with pytest.raises(InputError, match="no text"):
        find_or_make(lake.run("r"), "tokens", "f", stop)
    assert list_files(lake.uri) == []


def test_a_damaged_dataset_is_refused(lake):
    find_or_make(lake.run("r"), "tokens", "f", made)
    write_bytes(join(lake.dataset("tokens", "f"), "a.bin"), b"short")
    with pytest.raises(DamagedError, match=r"a\.bin: has 5 bytes, the manifest says 7"):
        find_or_make(lake.run("r"), "tokens", "f", fail)


def test_tokens_that_do_not_exist(lake):
    assert TokensDataset.find(lake, "f") is None
    with pytest.raises(InputError, match="this run has no tokens yet; run its tokenize step first"):
        TokensDataset.of_run(lake.run("r"))


def test_tokens_of_a_run(lake):
    tokenizer = train_tokenizer()

    def make(folder):
        files = [write_file(folder, "tokenizer.json", tokenizer.json), FileEntry.of("shards/0", b"")]
        return MadeDataset(files, {"vocab_size": tokenizer.vocab_size}, {"files": [{"name": "a.txt"}]})

    find_or_make(lake.run("r"), "tokens", "f", make)
    tokens = TokensDataset.of_run(lake.run("r"))
    assert (tokens.uri, tokens.fingerprint) == (lake.dataset("tokens", "f"), "f")
    assert tokens.vocab_size == tokens.read_tokenizer().vocab_size == tokenizer.vocab_size
    assert [entry.name for entry in tokens.shards] == ["shards/0"]
    assert tokens.files == [{"name": "a.txt"}]
