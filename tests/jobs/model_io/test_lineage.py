"""The lineage of a model: its corpus, and how it is read."""

import pytest

from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.models import LINEAGE
from jobs.model_io.lineage import Lineage, ModelOrigin, describe_corpus, read_lineage


def lineage_of(**changes):
    values = {
        "run": "lab/local/r",
        "config": {"corpus": "texts"},
        "datasets": {"tokens": "1" * 64},
        "corpus": describe_corpus([], "m.json"),
        "code": {"version": "1", "package": "2" * 64, "train": "3" * 64},
        "software": {"torch": "2.0"},
        "machine": {"engine": "inline", "cores": 2},
        "tokenizer": {"from": "trained", "sha256": "4" * 64},
    }
    return Lineage(**values | changes)


def write(folder, content):
    store.publish_manifest(folder, Manifest("model", "0", (store.write_file(folder, LINEAGE, content),)))


def test_a_corpus_is_its_names_and_contents_in_any_order():
    files = [{"name": name, "sha256": "0" * 64, "size": 3} for name in ("a.txt", "b é.txt")]
    found = describe_corpus(files, "m.json")
    assert (found["files"], found["bytes"], found["listed_in"]) == (2, 6, "m.json")
    assert describe_corpus(reversed(files), "m.json") == found
    assert describe_corpus([files[0], files[1] | {"sha256": "1" * 64}], "")["sha256"] != found["sha256"]
    assert describe_corpus([files[0], files[1] | {"name": "c.txt"}], "")["sha256"] != found["sha256"]


def test_a_model_of_an_earlier_version_has_no_lineage(tmp_path):
    assert read_lineage(tmp_path.as_uri()) is None
    store.publish_manifest(tmp_path.as_uri(), Manifest("model", "0", (FileEntry.of("config.json", b"{}"),)))
    assert read_lineage(tmp_path.as_uri()) is None


def test_a_lineage_is_read_as_it_was_written(tmp_path):
    written = lineage_of(start=ModelOrigin("file:///m", "5" * 64, "6" * 64, "lab/local/first"))
    write(tmp_path.as_uri(), written.to_json())
    assert read_lineage(tmp_path.as_uri()) == written
    assert written.essentials()["started from"] == "lab/local/first, weights 666666666666"


@pytest.mark.parametrize("content", [b"{}", b"[]", b"x", lineage_of(format_version=2).to_json()])
def test_a_lineage_of_another_form_is_refused(tmp_path, content):
    write(tmp_path.as_uri(), content)
    with pytest.raises(DamagedError, match=r"lineage\.json: not what Nightjar writes"):
        read_lineage(tmp_path.as_uri())


def test_other_conditions_are_named_but_for_the_package_and_the_settings():
    there = lineage_of()
    here = lineage_of(
        run="lab/local/again",
        config={},
        code={"version": "2", "package": "7" * 64, "train": "8" * 64},
        machine={"engine": "inline", "cores": 4},
    )
    assert list(there.differences(here)) == [
        "cores 2 there, 4 here",
        "Nightjar 1 there, 2 here",
        "code of the train step 333333333333 there, 888888888888 here",
    ]
    assert list(there.differences(there)) == []
