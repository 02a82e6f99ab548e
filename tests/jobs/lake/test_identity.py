"""Names of runs: one to one, readable, and such that file systems, S3, EMR and URIs take them as they are."""

import re
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InputError
from jobs.lake.identity import MOST_CHARACTERS, decode_name, encode_name, shorten_name
from jobs.lake.layout import Lake, Run
from jobs.lake.uri import join, local_path

HOSTILE = st.one_of(
    st.text(min_size=1),
    st.text(alphabet="./\\=%-_ :+aAé\0\n\ud800", min_size=1, max_size=12),
    st.text(alphabet="ab", min_size=190, max_size=700),
    st.sampled_from(
        ["..", ".", "../../x", "/etc/passwd", "a/../b", "%2e%2e%2f", "C:\\x", "-rf", "~", "=h", "=2E", "con"]
    ),
)


@given(HOSTILE)
@settings(max_examples=300)
def test_a_name_is_plain_short_and_means_its_text_alone(text):
    name = encode_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_=][A-Za-z0-9._=-]*", name)
    assert len(name) <= MOST_CHARACTERS
    assert len(name) == MOST_CHARACTERS or decode_name(name) in (text, name)
    if "=h" not in name:
        assert decode_name(name) == text


@given(st.lists(HOSTILE, min_size=2, max_size=8, unique=True))
@settings(max_examples=300)
def test_names_of_different_texts_differ(texts):
    assert len({encode_name(text) for text in texts}) == len(texts)


def test_near_texts_keep_different_names():
    texts = ["exp:1", "exp-1", "exp=3A1", "exp 1", "exp.1", "exp_1", "Exp:1", ".exp:1", "=2Eexp:1", "exp:1 ", "exp/1"]
    assert len({encode_name(text) for text in texts}) == len(texts)


def test_long_texts_that_differ_at_their_end_keep_different_names():
    assert encode_name("é" * 100 + "1") != encode_name("é" * 100 + "2")
    assert encode_name("x" * 200) == "x" * 200
    assert encode_name("x" * 201).startswith("x" * 134 + "=h")
    assert encode_name(encode_name("x" * 201)) != encode_name("x" * 201)  # a run id cannot be made to meet a cut name


def test_airflows_ids_are_readable():
    assert encode_name("manual__2026-11-26T03:00:00+00:00") == "manual__2026-11-26T03=3A00=3A00=2B00=3A00"
    assert encode_name("exp-1.5_b") == "exp-1.5_b"


@pytest.mark.parametrize("name", ["=", "=3", "=3a", "a=ZZ", "=41", "é", "=h"])
def test_a_folder_that_has_no_encoded_name_is_shown_as_it_is(name):
    assert decode_name(name) == name


def test_an_empty_text_is_refused():
    with pytest.raises(InputError, match="needs a name"):
        encode_name("")


@given(HOSTILE, HOSTILE, st.sampled_from(["lab", "a.b-c_1"]))
@settings(max_examples=300)
def test_a_run_lies_in_its_pipelines_folder_whatever_its_names(run_id, pipeline, project):
    for lake in (Lake("file:///data/my%20lake"), Lake("s3://bucket/prefix")):
        run = lake.run(run_id, pipeline, project)
        folder = join(lake.runs, project)
        assert run.uri.startswith(f"{folder}/")
        assert run.uri.count("/") == folder.count("/") + 2
        assert Run.of_config(run.config) == run
        assert (run.project, run.run_id) == (project, run_id)
    path = local_path(Lake("file:///data/my%20lake").run(run_id, pipeline, project).uri)
    assert path.parts[:4] == ("/", "data", "my lake", "runs")
    assert not {"", ".", ".."} & set(path.parts[4:])


def test_nothing_in_a_name_is_escaped_in_a_uri_but_the_equals_sign():
    name = encode_name("a b:c/d%é")
    assert quote(name, safe="=") == name


@pytest.mark.parametrize("project", ["", "..", "a/b", "a b", "é", "-a", "x" * 64])
def test_a_project_is_a_plain_name(project):
    with pytest.raises(InputError, match=re.escape(f"NIGHTJAR_PROJECT: {project!r} is not a valid name; use at")):
        Lake("s3://bucket/prefix").run("r", project=project)


def test_a_name_at_its_limit_is_not_cut():
    assert shorten_name("x" * 256, 256) == "x" * 256
    assert len(shorten_name("x" * 257, 256)) == 256
