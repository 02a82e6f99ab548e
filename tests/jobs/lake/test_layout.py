"""URIs, and the names of folders and files in the lake."""

from pathlib import Path

import pytest

from jobs.errors import InputError
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import base_name, bucket_and_key, join, local_path, to_uri


@pytest.mark.parametrize("name", ["/data/my läke/a+b:c#?%20", "/x"])
def test_paths_become_uris_and_back(name):
    assert local_path(to_uri(name)) == Path(name)
    assert local_path(join(to_uri(name), "é ü", "x#y")) == Path(name) / "é ü" / "x#y"
    assert to_uri(to_uri(name)) == to_uri(name)
    assert base_name(join(to_uri(name), "é ü")) == "é ü"


def test_keys_of_s3_are_not_encoded():
    uri = join(to_uri("s3://bucket/a b/"), "é+c")
    assert uri == "s3://bucket/a b/é+c"
    assert bucket_and_key(uri) == ("bucket", "a b/é+c")
    assert base_name(uri) == "é+c"


@pytest.mark.parametrize("text", ["file:/data/a%20b", "file://localhost/data/a%20b/", "file:///data/a%20b"])
def test_other_forms_of_file_uris_are_accepted(text):
    assert to_uri(text) == "file:///data/a%20b"


@pytest.mark.parametrize("scheme", ["s3", "s3a", "s3n"])
def test_hadoops_names_of_s3_are_accepted(scheme):
    assert to_uri(f"{scheme}://bucket/a b/") == "s3://bucket/a b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hdfs://x/y", "unknown scheme 'hdfs'"),
        ("s3:///key", "no bucket"),
        ("file://host/x", "three slashes"),
        (" ", "empty"),
    ],
)
def test_what_is_no_path_or_uri_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        to_uri(text)


@pytest.mark.parametrize("lake", ["s3://bucket/pre fix", "file:///data/my%20lake"])
def test_a_run_is_found_by_its_configuration(lake):
    run = Lake(lake).run("scheduled__2026-01-02T03:04:05+00:00", "nightly")
    assert run.folder == "lab/nightly/scheduled__2026-01-02T03=3A04=3A05=2B00=3A00"
    found = Run.of_config(run.config)
    assert found == run
    assert (found.project, found.pipeline, found.run_id) == ("lab", "nightly", "scheduled__2026-01-02T03:04:05+00:00")
    with pytest.raises(InputError, match=r"expected <lake>/runs/<project>/<pipeline>/<run>/config\.json"):
        Run.of_config(run.datasets)


def test_a_uri_with_an_encoded_nul_is_refused():
    with pytest.raises(InputError, match="cannot hold NUL"):
        to_uri("file:///a%00b")
