"""The checks before a cluster is created, on local disks and on S3."""

import json
import os
import sys
import uuid

import pytest

from jobs.config import TokenizeConfig, resolve
from jobs.corpus.byte_ranges import ByteRange
from jobs.corpus.check import check_sources
from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.uri import join, local_path
from jobs.prices.book import Price, to_toml
from jobs.sources.listing import list_sources
from nightjar.aws import emr_client, store
from nightjar.tasks import estimate, preflight

pytestmark = pytest.mark.slow

TEXT = b"It was a dark night.\n\n" * 20


def config(corpus, **settings):
    return resolve(corpus, "tiny", settings)


def check(corpus):
    preflight.check_corpus(config(corpus))


def test_file_or_folder_of_text_is_accepted(put, lake_uri):
    check(put("corpus/a.txt", TEXT))
    put("corpus/cover.png", b"\xff\xff")
    check(join(lake_uri, "corpus"))


def test_patterns_lists_and_compressed_files_are_accepted(put, lake_uri):
    put("corpus/a.txt", TEXT)
    put("corpus/b.txt.gz", b"\x1f\x8b not looked into")
    check(join(lake_uri, "corpus"))
    check(f"{lake_uri}/corpus/*.gz\n{lake_uri}/corpus/a.txt")
    with pytest.raises(InputError, match=r"none of the 2 files in .* matches this pattern"):
        check(f"{lake_uri}/corpus/a.txt\n{lake_uri}/corpus/*.jsonl")


def test_an_airflow_that_cannot_wait_for_emr_is_refused(monkeypatch):
    preflight.check_can_wait()
    monkeypatch.setitem(sys.modules, "aiobotocore", None)
    with pytest.raises(InputError, match=r"install apache-airflow-providers-amazon\[aiobotocore\]"):
        preflight.check_can_wait()


def check_utf8(corpus, **limits):
    preflight.check_contents(list_sources(corpus, store()), store(), TokenizeConfig(), **limits)


def test_characters_across_blocks_are_valid(put):
    check_utf8(put("a.txt", "naïve 夜鷹 😀".encode() * 10), block_bytes=3)


@pytest.mark.parametrize(("data", "offset"), [(TEXT + b"\xe9" + TEXT, 440), (TEXT + "夜".encode()[:2], 440)])
@pytest.mark.parametrize("block_bytes", [7, 440, 10_000])
def test_offset_of_an_invalid_byte_is_named(put, data, offset, block_bytes):
    with pytest.raises(InputError, match=rf"a\.txt: not UTF-8 at byte {offset} \(0x"):
        check_utf8(put("a.txt", data), block_bytes=block_bytes)


def test_the_step_names_the_byte_in_the_same_words(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT + b"\xe9" + TEXT)
    corpus = tmp_path.as_uri()
    with pytest.raises(InputError) as before:
        check(corpus)
    with pytest.raises(InputError) as later:
        check_sources([ByteRange.whole(source) for source in list_sources(corpus, store())], settings=TokenizeConfig())
    assert str(before.value) == str(later.value)


@pytest.mark.parametrize("invalid", ["refuse", "replace"])
def test_a_file_that_is_no_text_is_refused(put, invalid):
    corpus = put("a.txt", TEXT.decode().encode("utf-16-le"))
    with pytest.raises(InputError, match=r"a\.txt: .* it looks like UTF-16-LE"):
        preflight.check_corpus(config(corpus, **{"tokenize.invalid_utf8": invalid}))


def test_only_the_start_of_a_corpus_is_scanned(put, lake_uri):
    put("corpus/a.txt", TEXT)
    put("corpus/b.txt", TEXT + b"\xff")
    corpus = join(lake_uri, "corpus")
    check_utf8(corpus, max_bytes=len(TEXT))
    check_utf8(corpus, max_bytes=2 * len(TEXT))
    with pytest.raises(InputError, match=r"b\.txt: not UTF-8 at byte 440 "):
        check_utf8(corpus, max_bytes=2 * len(TEXT) + 1)
    check_utf8(put("c.txt", b"ab" * 49 + "x夜".encode() + TEXT), max_bytes=100)  # the limit lies within a character


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [("none.txt", None, "no file there"), ("empty.txt", b"", "is empty"), ("short.txt", b"To be", "too few")],
)
def test_missing_empty_or_short_corpus_is_refused(put, lake_uri, name, data, message):
    uri = join(lake_uri, name) if data is None else put(name, data)
    with pytest.raises(InputError, match=message):
        check(uri)


def test_folder_without_text_is_refused(put, lake_uri):
    put("corpus/a.pdf", TEXT)
    with pytest.raises(InputError, match=r"its only file is not named \*\.txt"):
        check(join(lake_uri, "corpus"))


def check_files(lake_uri, **settings):
    preflight.check_files(
        config("c", **{key.replace("__", "."): value for key, value in settings.items()}), Lake(lake_uri)
    )


def test_missing_or_invalid_prompts_are_refused(put, lake_uri):
    check_files(lake_uri, generate__prompts_file=put("p.jsonl", b'{"prompt": "To be"}'))
    with pytest.raises(InputError, match=r"generate.prompts_file: .*none.txt cannot be read"):
        check_files(lake_uri, generate__prompts_file=join(lake_uri, "none.txt"))
    with pytest.raises(InputError, match=r"generate\.prompts_file: .* line 1"):
        check_files(lake_uri, generate__prompts_file=put("q.jsonl", b"To be"))


def test_missing_models_tokenizers_and_embeddings_are_refused(put, lake_uri):
    check_files(lake_uri, tokenize__tokenizer=put("t.json", b"{}"), train__embeddings=put("e.csv", b"x"))
    for key, message in [
        ("tokenize.tokenizer", r"tokenize\.tokenizer: .*none.* cannot be read"),
        ("train.embeddings", r"train\.embeddings: .*none.* cannot be read"),
        ("train.init", r"train\.init: .*none: no model found"),
    ]:
        with pytest.raises(InputError, match=message):
            check_files(lake_uri, **{key: join(lake_uri, "none")})
    with pytest.raises(InputError, match=r"no champion yet; .*champion-or-scratch"):
        check_files(lake_uri, train__init="champion")
    check_files(lake_uri, train__init="champion-or-scratch")


def test_a_model_of_another_shape_is_refused(put, lake_uri):
    stored = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 9}
    data = json.dumps(stored).encode()
    put("models/one/config.json", data)
    folder = join(lake_uri, "models", "one")
    store().publish_manifest(folder, Manifest("model", "0", (FileEntry.of("config.json", data),)))
    with pytest.raises(InputError, match=r"train\.init .*: model\.num_layers is 9 in that model and 2 in this run"):
        check_files(lake_uri, train__init=folder)


def test_settings_without_effect_are_in_the_log(put, lake_uri, caplog, emr_at_home):
    chosen = config(
        put("a.txt", TEXT * 9), **{"tokenize.lowercase": True, "tokenize.field": "x", "spark.master": "yarn"}
    )
    preflight.prepare(chosen, Lake(lake_uri).run(f"r{uuid.uuid4().hex[:8]}"))
    lines = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
    assert [line.partition("=")[0] for line in lines] == ["spark.master", "tokenize.field", "tokenize.lowercase"]


def test_what_earlier_runs_have_decided_is_known_before_a_cluster_exists(put, lake_uri, caplog, emr_at_home):
    lake, corpus = Lake(lake_uri), put("earlier/a.txt", TEXT * 9)
    first, settings = lake.run("first"), {"tokenize.tokenizer": "inherit", "tokenize.vocab_size": 300}
    settings |= {"windows.split": "fixed", "windows.seed": 5, "promotion.enabled": False}
    for seed in (None, 0):
        caplog.clear()
        preflight.prepare(config(corpus, **settings), lake.run(f"r{uuid.uuid4().hex[:8]}", "default"))
        lines = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
        named = [line.partition("=")[0] for line in lines]
        assert named == ([] if seed is None else ["tokenize.vocab_size", "windows.seed"])
        store().write_bytes(first.config, config(corpus).to_json().encode())
        store().write_json(first.datasets, {"tokens": "f"})
        store().publish_manifest(lake.dataset("tokens", "f"), Manifest("tokens", "f", (), {}, {"how": {}}))
        rule = {"text": {}, "seed": 0}
        store().write_json(join(lake_uri, "pipelines/default/split/00000001.json"), {"inputs": {"rule": rule}})
    store().delete_file(join(lake_uri, "pipelines/default/split/00000001.json"))


def test_other_documents_than_those_of_the_decided_split_are_refused(put, lake_uri, emr_at_home):
    rule = {"text": {"documents": "line", "max_piece_bytes": 16384}}
    store().write_json(join(lake_uri, "pipelines/default/split/00000001.json"), {"inputs": {"rule": rule}})
    corpus, run = put("corpus/a.txt", TEXT), Lake(lake_uri).run("r", "default")
    fixed = {"windows.split": "fixed", "tokenize.documents": "line"}
    for changed in ({"tokenize.documents": "paragraph"}, {"tokenize.max_piece_bytes": 2048}):
        with pytest.raises(InputError, match=r"tokenize\.\w+=\w+: the split of the pipeline default was decided with"):
            preflight.prepare(config(corpus, **fixed | changed), run)
    assert not store().exists(run.config)
    preflight.prepare(config(corpus, **fixed), run)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_unreadable_file_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        check((tmp_path / "a.txt").as_uri())


def test_missing_bucket_is_refused(aws):
    with pytest.raises(InputError, match=r"s3://no-such-bucket/text: cannot be read .*NoSuchBucket"):
        check("s3://no-such-bucket/text")
    with pytest.raises(InputError, match=r"s3://no-such-bucket/lake: the lake cannot be written to .*NIGHTJAR_LAKE"):
        store().check_writable("s3://no-such-bucket/lake")


def test_lake_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        store().check_writable((tmp_path / "file" / "lake").as_uri())


def test_check_of_the_lake_leaves_no_file(lake_uri):
    store().check_writable(lake_uri)
    assert store().list_files(lake_uri) == []


def test_local_paths_are_refused_for_a_cluster_on_aws(tmp_path):
    aws_url, local = "https://elasticmapreduce.us-east-1.amazonaws.com", config(tmp_path.as_uri())
    with pytest.raises(InputError, match="corpus: a cluster on AWS cannot read"):
        preflight.check_reachable(local, Lake("s3://lakes/x"), aws_url)
    with pytest.raises(InputError, match="NIGHTJAR_LAKE"):
        preflight.check_reachable(config("s3://lakes/text"), Lake(tmp_path.as_uri()), aws_url)
    prompts = config("s3://lakes/text", **{"generate.prompts_file": str(tmp_path / "p.txt")})
    with pytest.raises(InputError, match=r"generate\.prompts_file: a cluster on AWS cannot read"):
        preflight.check_reachable(prompts, Lake("s3://lakes/x"), aws_url)
    for key in ("train.init", "train.embeddings", "tokenize.tokenizer"):
        with pytest.raises(InputError, match=rf"{key}: a cluster on AWS cannot read file://"):
            preflight.check_reachable(config("s3://lakes/text", **{key: "/a/b"}), Lake("s3://lakes/x"), aws_url)
    preflight.check_reachable(local, Lake(tmp_path.as_uri()), "http://127.0.0.1:5555")


def test_a_cleared_run_keeps_its_configuration_and_takes_the_deployment_anew(put, lake_uri, emr_at_home):
    corpus = put("a.txt", TEXT * 9)
    run = Lake(lake_uri).run(f"run-{uuid.uuid4().hex[:8]}", "default")
    first = preflight.prepare(config(corpus, **{"cluster.subnet_ids": ["subnet-1"]}), run).config
    again = preflight.prepare(config(corpus, **{"cluster.subnet_ids": ["subnet-2"]}), run).config
    assert (first.cluster.subnet_ids, again.cluster.subnet_ids) == (("subnet-1",), ("subnet-2",))
    assert store().read_bytes(run.config).decode() == first.to_json()
    with pytest.raises(InputError, match=r"another configuration \(train\.seed is 1234 there, 7 here\)"):
        preflight.prepare(config(corpus, **{"train.seed": 7}), run)


@pytest.mark.parametrize(
    "name", ["my lake", "a%20b", "100%", "a,b", "a#b", "a?b", "a*b", "a[1]", "a{1}", "a|b", 'a"b', "a\tb"]
)
def test_a_lake_that_spark_submit_refuses_is_refused_before(name):
    with pytest.raises(InputError, match=r"^NIGHTJAR_LAKE: s3://lakes/.* spark-submit on EMR refuses such") as caught:
        preflight.check_lake_uri(Lake(f"s3://lakes/{name}"))
    assert "\n" not in str(caught.value)


def test_the_estimate_is_said_and_written_once_beside_the_configuration(put, lake_uri, emr_at_home, monkeypatch):
    corpus = put("a.txt", TEXT * 9)
    run = Lake(lake_uri).run(f"run-{uuid.uuid4().hex[:8]}", "default")
    said = []
    monkeypatch.setattr(estimate.log, "info", lambda text, *values: said.append(text % values))
    preflight.prepare(config(corpus), run)
    hours = "Estimate: unknown (no earlier night); at most 75.00 instance hours by its limits"
    assert said[0] == f"{hours}; the embedded EMR costs nothing"
    first = store().read_json(run.estimate)
    assert (first["corpus_bytes"], first["instance_seconds"]) == (len(TEXT) * 9, None)
    assert first["bound_instance_seconds"] == 3 * (3600 + 4 * 6 * 3600)
    preflight.prepare(config(corpus, **{"cluster.core_instances": 5}), run)
    assert store().read_json(run.estimate) == first
    assert not store().exists(run.budget)


def test_an_estimate_knows_how_much_of_the_text_is_new_by_names_and_sizes(put, lake_uri, emr_at_home, monkeypatch):
    files = [{"name": "a.txt", "size": 440, "sha256": "0"}, {"name": "gone.txt", "size": 9, "sha256": "1"}]
    run, listed = Lake(lake_uri).run("before"), "datasets/tokens/t"
    store().publish_manifest(join(lake_uri, listed), Manifest("tokens", "t", (), inputs={"files": files}))
    lineage = json.dumps({"corpus": {"listed_in": f"{listed}/_manifest.json"}}).encode()
    entry = store().write_file(run.model, "lineage.json", lineage)
    store().publish_manifest(run.model, Manifest("model", "m", (entry,)))
    for name, size in [("a.txt", 440), ("b.txt", 60)]:
        put(f"corpus/{name}", b"x" * size)
    listing = preflight.check_corpus(config(join(lake_uri, "corpus")))
    assert estimate.share_of_new_text(listing, run.model, run) == 60 / 500
    assert estimate.share_of_new_text(listing, None, run) is None
    estimated, make = [], estimate.make_estimate
    monkeypatch.setattr(estimate, "make_estimate", lambda *known: estimated.append(known[0]) or make(*known))
    night = config(join(lake_uri, "corpus"), **{"train.init": "before", "train.epochs_of_new_text": 2})
    estimate.expect(night, run, listing, run.model)
    assert estimated[0].train.epochs == 2 * 60 / 500
    put("corpus/renamed.txt", b"x" * 440)
    store().delete_file(join(lake_uri, "corpus/b.txt"))
    renamed = preflight.check_corpus(night)
    assert estimate.share_of_new_text(renamed, run.model, run) is None  # a known size: it may be a file of before
    store().delete_file(join(lake_uri, listed, "_manifest.json"))
    assert estimate.share_of_new_text(listing, run.model, run) is None


def test_a_run_on_a_cluster_of_the_users_own_has_no_estimate_and_no_budget(put, lake_uri, emr_at_home):
    run = Lake(lake_uri).run(f"run-{uuid.uuid4().hex[:8]}", "default")
    preflight.prepare(config(put("a.txt", TEXT * 9), **{"budget.usd": 3, "cluster.job_flow_id": "j-1"}), run)
    assert store().read_json(run.estimate)["reason"] == "a cluster of your own is not billed"
    assert not store().exists(run.budget)


def test_a_budget_without_known_prices_is_refused_and_nothing_is_written(put, lake_uri, emr_at_home):
    run = Lake(lake_uri).run(f"run-{uuid.uuid4().hex[:8]}", "default")
    with pytest.raises(
        InputError, match=r"budget\.usd=3: the budget cannot be checked: .* not known; run nightjar prices"
    ):
        preflight.prepare(config(put("a.txt", TEXT * 9), **{"budget.usd": 3}), run)
    assert not store().exists(run.config)


def test_a_budget_may_be_raised_when_a_run_is_cleared(put, lake_uri, emr_at_home, tmp_path, monkeypatch):
    types = ("m6i.xlarge", "m6a.xlarge", "m7i.xlarge")
    prices = [Price(kind=kind, region="us-east-1", item=name, usd=0.5) for name in types for kind in ("ec2", "emr")]
    file = tmp_path / "prices.toml"
    file.write_bytes(to_toml(prices, "mine"))
    monkeypatch.setenv("NIGHTJAR_PRICES", str(file))
    corpus = put("a.txt", TEXT * 9)
    run = Lake(lake_uri).run(f"run-{uuid.uuid4().hex[:8]}", "default")
    first = preflight.prepare(config(corpus, **{"budget.usd": 3}), run).config
    again = preflight.prepare(config(corpus, **{"budget.usd": 4}), run).config
    assert (first.budget.usd, again.budget.usd) == (3, 4)
    written = store().read_json(run.budget)
    assert written == {"hourly_usd": pytest.approx(3.0, rel=0.01), "month_spent_usd": None, "later_seconds": None}
    preflight.prepare(config(corpus), run)
    assert not store().exists(run.budget)
    file.write_text("[[price]]\n")
    with pytest.raises(InputError, match=r"NIGHTJAR_PRICES: .*prices\.toml: price 1: kind: field required"):
        preflight.prepare(config(corpus), run)


@pytest.mark.parametrize("uri", ["s3://lakes/night-1/a_b.c=d", "s3://lakes", "s3://lakes/läke", "file:///my%20lake"])
def test_other_lakes_are_accepted(uri):
    preflight.check_lake_uri(Lake(uri))


def test_nothing_is_written_when_a_check_fails(aws, tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("r")
    with pytest.raises(InputError, match="no file there"):
        preflight.prepare(config((tmp_path / "none.txt").as_uri()), run)
    assert not local_path(run.uri).exists()


def test_missing_region_is_one_line(tmp_path, monkeypatch):
    emr_client.cache_clear()  # of the connection of other tests
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
