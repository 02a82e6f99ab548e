"""Runs are found by the names that people give them, in the layout of today and in the earlier one."""

import pytest

from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import MANIFEST, Lake, Run
from jobs.lake.models import find_model
from jobs.lake.runs import all_runs, find_run, located
from jobs.lake.uri import join


@pytest.fixture(params=["file", "s3"])
def lake(request, tmp_path):
    return Lake(tmp_path.as_uri() if request.param == "file" else request.getfixturevalue("s3_uri"))


def make(run):
    store.write_bytes(run.config, b"{}")
    for name in (MANIFEST, "config.json"):
        store.write_bytes(join(run.model, name), b"{}")
    return run


@pytest.mark.parametrize(
    "name",
    [
        "exp:1", "exp=3A1", "night ly/exp:1", "night=20ly/exp=3A1", "lab/night ly/exp:1", "lab/night=20ly/exp=3A1",
        "lab/night=20ly/exp:1",
    ],
)  # fmt: skip
def test_a_run_has_several_names(lake, name):
    run = make(lake.run("exp:1", "night ly"))
    make(lake.run("exp-1", "night ly"))
    assert find_run(name, lake) == run
    assert find_model(name, lake) == run.model


def test_a_name_that_several_runs_have_is_refused_with_their_names(lake):
    one, two = make(lake.run("r", "one")), make(lake.run("r", "two", "other"))
    for find in (find_run, find_model):
        with pytest.raises(InputError, match="r: several runs have this name; give one of lab/one/r, other/two/r"):
            find("r", lake)
    assert find_run("one/r", lake) == one
    assert find_model("other/two/r", lake) == two.model


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../x", "/etc/passwd", "lab", "lab/one", "lab/one/r/model", "s", "a\0b"]
)
def test_other_names_find_nothing(lake, name):
    make(lake.run("r", "one"))
    with pytest.raises(InputError):
        find_run(name, lake)


def test_without_a_lake_there_is_no_run(tmp_path):
    (tmp_path / "file").touch()
    for lake in (Lake((tmp_path / "none").as_uri()), Lake((tmp_path / "file").as_uri())):
        message = "has no run 'r'; check the name and --lake; run nightjar runs list to see all runs"
        with pytest.raises(InputError, match=message):
            find_run("r", lake)
        with pytest.raises(InputError, match="r: no model found"):
            find_model("r", lake)


def test_runs_of_both_layouts_are_listed(lake):
    earlier = [make(lake.earlier_run(name)) for name in ("exp-1", "lab")]  # and a project of the same name
    for run in earlier:
        store.write_bytes(join(run.checkpoints, "1", "x"), b"")
        store.write_bytes(join(run.step_stats("train")), b"{}")
    runs = [make(lake.run(*names)) for names in (("r", "one"), ("r", "two"), ("s", "two", "other"))]
    assert set(all_runs(lake)) == {*earlier, *runs}
    assert find_run("exp-1", lake) == find_run("exp:1", lake) == earlier[0]
    assert Run.of_config(earlier[0].config) == earlier[0]
    assert (earlier[0].project, earlier[0].pipeline, earlier[0].run_id) == ("", "", "exp-1")


def test_a_run_goes_on_in_the_earlier_layout_only_if_it_is_there_alone(lake):
    run, earlier = lake.run("exp:1", "default"), lake.earlier_run("exp:1")
    assert located(run, earlier) == run
    make(earlier)
    assert located(run, earlier) == earlier
    make(run)
    assert located(run, earlier) == run


@pytest.mark.parametrize(
    "place",
    ["s3://bucket/runs/a/runs/old/config.json", "file:///runs/runs/old/config.json", "s3://b/runs/old/config.json"],
)
def test_a_folder_above_the_lake_may_be_called_runs(place):
    run = Run.of_config(place)
    assert (run.folder, run.config) == ("old", place)
    new = Lake(run.lake_uri).run("r", "nightly")
    assert Run.of_config(new.config) == new


@pytest.mark.parametrize(
    "place",
    [
        "runs/a/b/config.json", "runs/a/b/c/d/config.json", "runs/../config.json", "x/a/config.json",
        "runs/a/b/../config.json", "runs/a/%2e%2e/c/config.json", "runs/config.json",
    ],
)  # fmt: skip
def test_other_places_are_no_configurations(place):
    with pytest.raises(InputError, match="not a run's configuration"):
        Run.of_config(f"file:///lake/{place}")


def test_a_pipeline_may_not_hide_the_layout():
    with pytest.raises(InputError, match="cannot have the name 'runs'"):
        Lake("s3://b").run("r", "runs")
