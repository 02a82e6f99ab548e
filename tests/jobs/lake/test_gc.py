"""Garbage collection: what is deleted, and what never is."""

import json
import time

import pytest

from jobs.cli.main import main
from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.gc import delete_garbage, find_garbage
from jobs.lake.layout import Lake
from jobs.lake.lock import locked
from jobs.lake.uri import join, relative_name
from tests.support.garbage import LATER, check, make_champion, make_run, publish


@pytest.fixture(params=["file", "s3"])
def lake(request, tmp_path):
    return Lake((tmp_path / "my lake").as_uri() if request.param == "file" else request.getfixturevalue("s3_uri"))


@pytest.fixture
def local(tmp_path):
    return Lake((tmp_path / "my lake").as_uri())


def garbage(lake, **options):
    return find_garbage(lake, time.time() + LATER, **options)


def folders(lake, **options):
    return {relative_name(each.uri, lake.uri) for each in garbage(lake, **options)}


def collect(lake, **options):
    return list(delete_garbage(lake, garbage(lake, **options), "command line: ann"))


@pytest.fixture
def fifty(local):
    """A lake of 50 runs: the first and the tenth were champions."""
    lake = local
    runs = [make_run(lake, number, tokens="shared" if number % 10 == 3 else None) for number in range(50)]
    make_champion(lake, runs[0])
    make_champion(lake, runs[10])
    return runs


def test_runs_beyond_a_number_go_and_what_is_needed_stays(local, fifty):
    lake = local
    with locked(fifty[5], seconds=2 * LATER):
        found = collect(lake, keep_runs=20)
        assert garbage(lake, keep_runs=20) == []
    kept = [fifty[0], fifty[5], fifty[10], *fifty[30:]]
    check(lake, kept)
    left = {relative_name(file.uri, lake.uri) for file in store.list_files(lake.uri)}
    assert sum(name.endswith("/config.json") for name in left) == len(kept)
    assert {name.split("/")[1] for name in left if name.startswith("logs/")} == {
        f"j-poems{int(run.run_id[-2:])}" for run in kept
    }
    assert any(name.startswith("datasets/tokens/shared/") for name in left)
    checkpoint = relative_name(fifty[5].checkpoints, lake.uri)
    assert [name for name in left if "checkpoints" in name] == [f"{checkpoint}/00000100/weights"]
    assert sum(each.num_bytes for each in found) > 27 * 1000


def test_without_a_number_all_runs_stay(lake):
    runs = [make_run(lake, number) for number in range(2)]
    make_champion(lake, runs[0])
    unused = join(lake.models, "e" * 64)
    publish(unused)
    publish(lake.dataset("tokens", "nobody"))
    store.write_bytes(join(lake.dataset("windows", "half"), "shard"), b"left by a crash")
    assert {relative_name(each.uri, lake.uri) for each in collect(lake) if each.kind != "checkpoints"} == {
        "datasets/tokens/nobody", "datasets/windows/half", f"models/{'e' * 64}"
    }  # fmt: skip
    check(lake, runs)
    assert garbage(lake) == []


def test_what_is_young_stays(lake):
    run = make_run(lake, 0)
    publish(lake.dataset("tokens", "nobody"))
    assert find_garbage(lake, time.time()) == []
    assert find_garbage(lake, time.time() + 5, keep_runs=1, min_days=0) != []
    check_only = {each.kind for each in find_garbage(lake, time.time() + 5, min_days=0)}
    assert check_only == {"checkpoints", "dataset"}
    assert store.exists(run.config)


def test_packages_stay_while_a_run_works_and_the_latest_always(local):
    run = make_run(local, 0)
    for name in "ab":
        publish(local.package(name * 64), "jobs.zip")
        time.sleep(0.02)
    with locked(run, seconds=2 * LATER):
        assert not any("packages" in name for name in folders(local))
    assert [name for name in folders(local) if "packages" in name] == [f"packages/{'a' * 64}"]


def test_runs_of_every_pipeline_are_counted_apart(local):
    runs = [make_run(local, number, pipeline) for number in range(3) for pipeline in ("poems", "prose")]
    make_champion(local, runs[0])
    found = {name for name in folders(local, keep_runs=1) if name.count("/") == 3}
    assert found == {f"runs/lab/{name}" for name in ("poems/night-01", "prose/night-00", "prose/night-01")}


def test_a_run_whose_model_another_started_from_stays(local):
    runs = [make_run(local, number) for number in range(4)]
    for child, parent in ((3, 1), (1, 0)):
        store.write_json(join(runs[child].train, "start.json"), {"init": runs[parent].model})
    store.write_json(join(runs[2].train, "start.json"), {"init": None})
    assert {name for name in folders(local, keep_runs=1) if name.count("/") == 3} == {"runs/lab/poems/night-02"}


def test_a_run_whose_model_another_used_stays(local):
    runs = [make_run(local, number) for number in range(4)]
    for user, uri in ((3, runs[1].model_archive), (1, "file:///elsewhere/model")):
        store.write_json(runs[user].used, {"name": "x", "uri": uri, "fingerprint": "f"})
    assert {name for name in folders(local, keep_runs=1) if name.count("/") == 3} == {
        f"runs/lab/poems/night-{number:02d}" for number in (0, 2)
    }


def test_the_champion_of_an_earlier_version_stays(local):
    run = make_run(local, 0, "default")
    publish(join(local.models, "e" * 64))
    store.write_json(local.earlier_champion, {"model": "e" * 64, "run_id": run.run_id})
    make_champion(local, make_run(local, 1, "default"), "default")
    make_run(local, 2, "default")
    assert not any(
        name.startswith(("runs/lab/default/night-00", "models"))
        for name in folders(local, keep_runs=1)
        if name.count("/") < 4
    )


def test_a_damaged_file_that_says_what_is_in_use_stops_it(local):
    run = make_run(local, 0)
    store.write_bytes(run.datasets, b"{")
    with pytest.raises(DamagedError, match=r"datasets\.json"):
        garbage(local)
    store.write_bytes(local.pipeline("poems").champion, b"{")
    with pytest.raises(DamagedError, match=r"champion\.json"):
        garbage(local)


def test_the_command_shows_and_deletes_and_leaves_a_record(local, capsys):
    for number in range(3):
        make_run(local, number)
    arguments = ["gc", "--lake", local.uri, "--keep-runs", "1", "--min-days", "0"]
    assert main([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "kind\tfolder\tfiles\tsize\twhy"
    assert "run\truns/lab/poems/night-00\t" in shown.out
    assert "folders can be freed; nothing was deleted" in shown.err
    assert len(store.list_folders(join(local.runs, "lab/poems"))) == 3
    assert main(arguments) == 0
    assert "were freed" in capsys.readouterr().err
    assert store.list_folders(join(local.runs, "lab/poems")) == ["night-02"]
    [record] = store.list_files(local.audit)
    values = json.loads(store.read_bytes(record.uri))
    assert (values["action"], len(values["deleted"])) == ("gc", len(shown.out.splitlines()) - 1)
    assert values["by"].startswith("command line: ")
    assert main(arguments) == 0
    assert "nothing was deleted" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--keep-runs", "0"), ("--min-days", "-1"), ("--keep-runs", "x")])
def test_wrong_numbers_are_refused(local, options, capsys):
    assert main(["gc", "--lake", local.uri, *options]) == 2
    assert options[0] in capsys.readouterr().err
