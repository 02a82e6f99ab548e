"""What a YARN needs before it starts: jars, configuration, and S3 for its hosts. ``make test-yarn`` starts one."""

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest

from infra.airflow import standalone
from infra.emr.faults import Faults
from infra.emr.gateway import s3_at
from infra.emr.yarn import configuration, jars
from jobs.errors import InputError
from tests.support.waiting import PATIENCE_SECONDS

VALUES = {
    "spark_home": "/spark",
    "staging": "/staging",
    "java_options": "-Xss1m",
    "endpoint": "http://s3",
    "primary": "node-0",
    "largest_mb": "11712",
    "container_env": "A=b",
}


def test_each_difference_from_emr_has_a_reason_and_a_file() -> None:
    found = configuration.differences()
    assert len({(each.file, each.key) for each in found}) == len(found) > 20
    for each in found:
        assert len(each.reason) > 10
        assert each.value != configuration.recorded(each.file).get(each.key), each.key
    assert {each.file for each in found} == {"spark-defaults", "core-site", "yarn-site", "capacity-scheduler"}


def test_emrs_defaults_lie_below_the_clusters(tmp_path: Path) -> None:
    ours = {"spark.shuffle.service.enabled": "false", "spark.mine": "two words"}
    folders = configuration.write(tmp_path, VALUES, ours, {"AWS_REGION": "eu-west-1", "X": "it's"})
    lines = (folders.spark / "spark-defaults.conf").read_text().splitlines()
    defaults = dict(line.split(" ", 1) for line in lines)
    assert len(defaults) == len(lines)
    assert defaults["spark.shuffle.service.enabled"] == "false"
    assert defaults["spark.dynamicAllocation.enabled"] == "true"
    assert defaults["spark.mine"] == "two words"
    assert "export AWS_REGION=eu-west-1\n" in (folders.spark / "spark-env.sh").read_text()
    texts = [path.read_text() for path in (*folders.spark.iterdir(), *folders.hadoop.glob("*.xml"))]
    assert not [name for name in VALUES for text in texts if f"{{{name}}}" in text]


def test_missing_jars_are_one_line_that_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(jars.VARIABLE, str(tmp_path))
    with pytest.raises(InputError) as caught:
        jars.provide("3.4.1", tmp_path / "cache")
    message = str(caught.value)
    assert message.startswith(f"NIGHTJAR_HADOOP_JARS: {tmp_path} lacks 45 of 45 jars, the first is ")
    assert "coordinates.tsv" in message
    assert jars.REPOSITORY in message
    monkeypatch.setenv(jars.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match="none is not a folder"):
        jars.provide("3.4.1", tmp_path)


def test_a_folder_relative_to_this_one_is_found_by_daemons_in_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"a jar"
    jar = jars.Jar("group", "made", "1", hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(jars, "pinned", lambda version: (jar,))
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / jar.name).write_bytes(content)
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.setenv(jars.VARIABLE, "../jars")
    (found,) = jars.provide("1", tmp_path / "cache")
    assert found.is_absolute()
    monkeypatch.chdir("/")
    assert found.read_bytes() == content


def test_another_file_under_the_name_of_a_jar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(jars.VARIABLE, str(tmp_path))
    for jar in jars.pinned("3.4.2"):
        (tmp_path / jar.name).write_bytes(b"another")
    with pytest.raises(InputError, match=r"has the sha256 [0-9a-f]{64}, not [0-9a-f]{64} of .*; delete it"):
        jars.provide("3.4.2", tmp_path)


def test_a_spark_without_pinned_jars_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jars").mkdir()
    with pytest.raises(InputError, match=r"has no hadoop-client-api-\*\.jar; install pyspark with Hadoop"):
        jars.client_version(tmp_path)
    (tmp_path / "jars" / "hadoop-client-api-9.9.9.jar").touch()
    with pytest.raises(
        InputError, match=r"client of Hadoop 9\.9\.9, but this project only pins the jars of 3\.4\.1 and 3\.4\.2 \("
    ):
        jars.pinned(jars.client_version(tmp_path))


def test_the_hosts_get_s3_alone() -> None:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    with s3_at("127.0.0.1", Faults()) as endpoint:
        s3 = boto3.client("s3", endpoint_url=endpoint, **keys)
        s3.create_bucket(Bucket="of-the-hosts")
        assert "of-the-hosts" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        target = {"X-Amz-Target": "ElasticMapReduce.RunJobFlow"}
        for path, headers in (("/", target), ("/_nightjar/faults", {}), ("/moto-api/reset", {})):
            request = urllib.request.Request(endpoint + path, b"{}", headers)
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)
        s3.delete_bucket(Bucket="of-the-hosts")


def test_a_local_lake_is_out_of_reach_for_hosts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ["--executors", "yarn", "--lake", str(tmp_path), "--home", str(tmp_path / "home")]
    assert standalone.main(options) == 2
    assert "the hosts of a YARN cluster reach only S3; give a lake at s3://" in caplog.text
    assert not (tmp_path / "home").exists()
