"""The checks before a cluster is created, on local disks and on S3."""

import os
import uuid

import pytest

from jobs.config import resolve
from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.lake.uri import join, local_path
from nightjar.storage import open_storage
from nightjar.tasks import preflight

TEXT = b"It was a dark night.\n\n" * 20


def config(corpus, **settings):
    return resolve(corpus, "tiny", settings)


def check(corpus):
    preflight.check_corpus(config(corpus))


@pytest.fixture
def put(lake_uri):
    def write(name, data):
        open_storage(lake_uri).write(join(lake_uri, name), data)
        return join(lake_uri, name)

    return write


def test_file_or_folder_of_text_is_accepted(put, lake_uri):
    check(put("corpus/a.txt", TEXT))
    put("corpus/cover.png", b"\xff\xff")
    check(join(lake_uri, "corpus"))


def test_patterns_lists_and_compressed_files_are_accepted(put, lake_uri):
    put("corpus/a.txt", TEXT)
    put("corpus/b.txt.gz", b"\x1f\x8b not looked into")
    check(join(lake_uri, "corpus"))
    check(f"{lake_uri}/corpus/*.gz\n{lake_uri}/corpus/a.txt")
    with pytest.raises(InputError, match="does not exist"):
        check(f"{lake_uri}/corpus/a.txt\n{lake_uri}/corpus/*.jsonl")


def test_characters_across_chunks_are_valid(put, monkeypatch):
    monkeypatch.setattr(preflight, "_CHUNK_BYTES", 3)
    check(put("a.txt", "naïve 夜鷹 😀".encode() * 10))


@pytest.mark.parametrize(("data", "offset"), [(TEXT + b"\xe9" + TEXT, 440), (TEXT + "夜".encode()[:2], 440)])
@pytest.mark.parametrize("chunk", [7, 440, 10_000])
def test_offset_of_an_invalid_byte_is_named(put, monkeypatch, data, offset, chunk):
    monkeypatch.setattr(preflight, "_CHUNK_BYTES", chunk)
    with pytest.raises(InputError, match=f"a.txt is not UTF-8 at byte {offset};"):
        check(put("a.txt", data))


def test_only_the_start_of_a_corpus_is_scanned(put, monkeypatch):
    monkeypatch.setattr(preflight, "SCAN_BYTES", 100)
    check(put("a.txt", TEXT + b"\xff"))
    check(put("b.txt", b"ab" * 49 + "x夜".encode() + TEXT))  # the bound lies within a letter


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [("none.txt", None, "does not exist"), ("empty.txt", b"", "is empty"), ("short.txt", b"To be", "too few")],
)
def test_missing_empty_or_short_corpus_is_refused(put, lake_uri, name, data, message):
    uri = join(lake_uri, name) if data is None else put(name, data)
    with pytest.raises(InputError, match=message):
        check(uri)


def test_folder_without_text_is_refused(put, lake_uri):
    put("corpus/a.pdf", TEXT)
    with pytest.raises(InputError, match=r"holds no \.txt, \.jsonl or \.parquet file"):
        check(join(lake_uri, "corpus"))


def test_missing_or_invalid_prompts_are_refused(put, lake_uri):
    preflight.check_prompts(config("c", **{"generate.prompts_file": put("p.jsonl", b'{"prompt": "To be"}')}))
    with pytest.raises(InputError, match=r"generate.prompts_file: .*none.txt cannot be read"):
        preflight.check_prompts(config("c", **{"generate.prompts_file": join(lake_uri, "none.txt")}))
    with pytest.raises(InputError, match=r"generate\.prompts_file: .* line 1"):
        preflight.check_prompts(config("c", **{"generate.prompts_file": put("q.jsonl", b"To be")}))


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_unreadable_file_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        check((tmp_path / "a.txt").as_uri())


def test_missing_bucket_is_refused(aws):
    with pytest.raises(InputError, match="corpus: s3://no-such-bucket/text cannot be read"):
        check("s3://no-such-bucket/text")
    with pytest.raises(InputError, match="NIGHTJAR_LAKE: s3://no-such-bucket/lake cannot be written to"):
        preflight.check_lake(Lake("s3://no-such-bucket/lake"))


def test_lake_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        preflight.check_lake(Lake((tmp_path / "file" / "lake").as_uri()))


def test_check_of_the_lake_leaves_no_file(lake_uri):
    preflight.check_lake(Lake(lake_uri))
    assert open_storage(lake_uri).list_files(lake_uri) == []


def test_local_paths_are_refused_for_a_cluster_on_aws(tmp_path):
    aws_url, local = "https://elasticmapreduce.us-east-1.amazonaws.com", config(tmp_path.as_uri())
    with pytest.raises(InputError, match="corpus: a cluster on AWS cannot read"):
        preflight.check_reachable(local, Lake("s3://lakes/x"), aws_url)
    with pytest.raises(InputError, match="NIGHTJAR_LAKE"):
        preflight.check_reachable(config("s3://lakes/text"), Lake(tmp_path.as_uri()), aws_url)
    prompts = config("s3://lakes/text", **{"generate.prompts_file": str(tmp_path / "p.txt")})
    with pytest.raises(InputError, match=r"generate\.prompts_file: a cluster on AWS cannot read"):
        preflight.check_reachable(prompts, Lake("s3://lakes/x"), aws_url)
    preflight.check_reachable(local, Lake(tmp_path.as_uri()), "http://127.0.0.1:5555")


def test_configuration_is_written_once(lake_uri, put):
    corpus = put("a.txt", TEXT)
    run = Lake(lake_uri).run(f"run-{uuid.uuid4().hex[:8]}")
    first = preflight.publish_config(config(corpus), run)
    assert preflight.publish_config(config(corpus, **{"train.seed": 7}), run) == first
    assert open_storage(run.uri).read(run.config).decode() == first.to_json()


def test_nothing_is_written_when_a_check_fails(aws, tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("r")
    with pytest.raises(InputError, match="does not exist"):
        preflight.prepare(config((tmp_path / "none.txt").as_uri()), run)
    assert not local_path(run.uri).exists()


def test_missing_region_is_one_line(tmp_path, monkeypatch):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws", "login": "testing", "password": "testing"}')
    with pytest.raises(InputError, match=r"connection aws_default: cannot make an EMR client .*region"):
        preflight.prepare(config((tmp_path / "a.txt").as_uri()), Lake((tmp_path / "lake").as_uri()).run("r"))


def test_wheelhouse_that_does_not_fit_is_refused(put, lake_uri):
    place = join(lake_uri, "wheelhouses", "0" * 64)
    chosen = config("file:///text", **{"cluster.wheelhouse": place})
    with pytest.raises(InputError, match="has no SHA256SUMS"):
        preflight.check_wheelhouse(chosen)
    put(f"wheelhouses/{'0' * 64}/SHA256SUMS", b"")
    put(f"wheelhouses/{'0' * 64}/torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl", b"")
    with pytest.raises(InputError, match=r"cluster.wheelhouse: torch-2.13.0-.* has no \+cpu in its version"):
        preflight.check_wheelhouse(chosen)
