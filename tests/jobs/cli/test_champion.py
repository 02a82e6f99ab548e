"""The command ``champion``: its tables, its errors, and going back to an earlier champion."""

import pytest

from jobs.cli.main import main
from jobs.lake import store
from jobs.lake.champion import MODEL_FILES, Change, change_champion, read_champion
from jobs.lake.layout import Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.uri import join
from tests.support.results import finish


@pytest.fixture
def lake(tmp_path):
    found = Lake((tmp_path / "lake").as_uri())
    for pipeline, names in {"poems": "ab", "default": "c"}.items():
        for name in names:
            run, model = found.run(f"night-{name}", pipeline), name * 64
            finish(run)
            folder = join(found.models, model)
            store.publish_manifest(folder, Manifest("model", model, (store.write_file(folder, "config.json", b"{}"),)))
            change = Change(
                "promoted",
                model,
                run.folder,
                f"2026-11-2{len(names)}",
                "airflow: ann",
                "better",
                {"bits_per_byte": 2.5},
            )
            assert change_champion(found.pipeline(pipeline), *read_champion(found.pipeline(pipeline)), change)
    return found


def run(lake, *arguments):
    return main(["champion", *arguments, "--lake", lake.uri])


def test_champions_are_listed_and_shown(lake, capsys):
    assert run(lake, "list") == 0
    assert capsys.readouterr().out.splitlines() == [
        "pipeline\trun\tmodel\tsince\tby\tjudged by",
        "default\tnight-c\tcccccccccccc\t2026-11-21\tairflow: ann\tbits per byte 2.5",
        "poems\tnight-b\tbbbbbbbbbbbb\t2026-11-22\tairflow: ann\tbits per byte 2.5",
    ]
    assert run(lake, "show", "poems") == 0
    shown = capsys.readouterr().out
    assert "run\tlab/poems/night-b\n" in shown
    assert "2026-11-22\tpromoted\tlab/poems/night-a\taaaaaaaaaaaa\tairflow: ann\tbetter\n" in shown


def test_a_champion_is_compared_with_the_one_before_and_replaced_by_it(lake, capsys, caplog):
    assert run(lake, "diff", "poems") == 0
    assert capsys.readouterr().out.splitlines()[0] == "\tnight-a\tnight-b"
    assert run(lake, "diff", "--run", "night-a") == 0
    assert capsys.readouterr().out.splitlines()[0] == "\tnight-a\tnight-c"
    assert run(lake, "rollback", "poems", "--why", "it writes nonsense") == 0
    assert capsys.readouterr().out == "champion of poems: run lab/poems/night-a, model aaaaaaaaaaaa\n"
    assert f"next: python -m jobs champion show poems --lake {lake.uri}\n" in caplog.text
    last = read_champion(lake.pipeline("poems"))[0].history[-1]
    assert (last.action, last.why, last.by.startswith("command line: ")) == ("rolled back", "it writes nonsense", True)


def test_a_person_promotes_a_run_without_a_comparison(lake, capsys, caplog):
    run_ = lake.run("night-a", "poems")
    for name in MODEL_FILES:
        store.write_bytes(join(run_.model, name), b"new")
    entries = tuple(FileEntry.of(name, b"new") for name in sorted(MODEL_FILES))
    store.publish_manifest(run_.model, Manifest("model", "new", entries))
    assert run(lake, "promote", "night-a", "--why", "another kind of model") == 0
    found, _ = read_champion(lake.pipeline("poems"))
    assert capsys.readouterr().out == f"champion of poems: run lab/poems/night-a, model {found.model[:12]}\n"
    assert f"next: python -m jobs sample --lake {lake.uri} --model champion:poems --prompt 'The man'\n" in caplog.text
    assert (found.history[-1].why, len(found.history)) == ("another kind of model", 3)
    assert store.read_bytes(join(found.model_uri, "config.json")) == b"new"
    assert run(lake, "promote", "night-b") == 1
    assert "model/_manifest.json: missing; the run has no complete model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("show", "prose"),
            "pipelines/prose/champion.json: no champion yet; the lake has the pipelines default, poems",
        ),
        (("diff",), "champion diff: default had no champion before; name a run with --run"),
        (("rollback",), "pipelines/default/champion.json: no earlier champion to go back to; nightjar champion show d"),
        (("rollback", "poems", "--to", "x"), "no earlier champion to go back to"),
        (("diff", "--run", "none"), "none"),
    ],
)
def test_mistakes_are_one_line(arguments, words, lake, capsys):
    assert run(lake, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert shown.err.count("\n") == 1


def test_a_lake_without_a_champion_says_how_to_get_one(tmp_path, capsys):
    assert main(["champion", "list", "--lake", str(tmp_path)]) == 0
    assert "no champion yet" in capsys.readouterr().err
