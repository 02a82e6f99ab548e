"""The command ``champion``: its tables, its errors, and going back to an earlier champion."""

import shutil
import subprocess
import sys

import pytest

from jobs.cli.champion import _evaluation_set
from jobs.cli.main import main
from jobs.lake import store
from jobs.lake.champion import MODEL_FILES, Change, change_champion, read_champion
from jobs.lake.layout import Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.uri import join
from tests.support.results import finish


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a lake in which three runs were promoted, two of them in one pipeline."""
    place = tmp_path_factory.mktemp("made")
    found = Lake(place.as_uri())
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
    return place


@pytest.fixture
def lake(made, tmp_path):
    """A copy of that lake."""
    return Lake(shutil.copytree(made, tmp_path / "lake").as_uri())


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


def test_each_fact_is_shown_once_with_its_unit_and_nothing_that_is_not_known(lake, capsys):
    def shown(metrics):
        pipeline = lake.pipeline("prose")
        run_, model = lake.run("night-d", "prose"), "d" * 64
        folder = join(lake.models, model)
        store.publish_manifest(folder, Manifest("model", model, (store.write_file(folder, "config.json", b"{}"),)))
        change = Change("promoted", model, run_.folder, "2026-11-23", "airflow: ann", "better", metrics)
        assert change_champion(pipeline, *read_champion(pipeline), change)
        assert run(lake, "show", "prose") == 0
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        labels = [line[0] for line in lines if len(line) == 2]
        assert len(set(labels)) == len(labels)
        return {line[0]: line[1] for line in lines if len(line) == 2}

    alone = {"gain": None, "bits_per_byte": 2.607607990133897, "valid_loss": 4.36249, "evaluation_set": ""}
    found = shown(alone)
    assert {label: found.get(label) for label in ("bits per byte", "valid loss", "gain", "evaluation set")} == {
        "bits per byte": "2.608",
        "valid loss": "4.362 nats per token",
        "gain": None,
        "evaluation set": "none yet",
    }
    gain = {"value": 0.0312, "lower": 0.01, "num_documents": 12, "num_equal": 11.5}
    found = shown({**alone, "gain": gain, "evaluation_set": "00000002"})
    assert found["gain"] == "loss 3.12% lower than the previous champion's, on 12 documents"
    assert found["evaluation set"] == "version 00000002"
    assert run(lake, "list") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("\tbits per byte 2.608, valid loss 4.362 nats per token, gain " + found["gain"])


def test_the_versions_of_the_evaluation_set_are_one_line():
    assert _evaluation_set("00000002", "00000001") == "version 00000002, and 00000001 when the model was made"
    assert _evaluation_set("00000002", "00000002") == "version 00000002"
    assert _evaluation_set("", "00000001") == "version 00000001"


def test_a_champion_is_compared_with_the_one_before_and_replaced_by_it(lake, capsys, caplog):
    assert run(lake, "diff", "poems") == 0
    assert capsys.readouterr().out.splitlines()[0] == "\tnight-a\tnight-b"
    assert run(lake, "diff", "--run", "night-a") == 0
    assert capsys.readouterr().out.splitlines()[0] == "\tnight-a\tnight-c"
    assert run(lake, "rollback", "poems", "--why", "it writes nonsense") == 0
    assert capsys.readouterr().out == "champion of pipeline poems: run lab/poems/night-a, model aaaaaaaaaaaa\n"
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
    assert capsys.readouterr().out == f"champion of pipeline poems: run lab/poems/night-a, model {found.model[:12]}\n"
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
            "pipelines/prose/champion.json: no champion yet; pipelines with a champion: default, poems",
        ),
        (("diff",), "champion diff: pipeline default has no previous champion; choose a run to compare with by --run"),
        (
            ("rollback",),
            "pipelines/default/champion.json: no earlier champion to go back to; run nightjar champion show d",
        ),
        (("rollback", "poems", "--to", "x"), "no earlier champion to go back to"),
        (("diff", "--run", "none"), "none"),
        (("show", "pomes"), "pipelines with a champion: default, poems; did you mean poems?"),
        (("promote", "nigth-a"), "has no run 'nigth-a'; did you mean night-a?; run nightjar runs list to see all runs"),
    ],
)
def test_mistakes_are_one_line(arguments, words, lake, capsys):
    assert run(lake, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nosuch", "nosuch: no model found"),
        ("champoin", "; did you mean champion?"),
        ("nigth-b", "; did you mean night-b?"),
        ("champion:pomes", "pipelines with a champion: default, poems; did you mean poems?; give the id of a run"),
    ],
)
def test_a_name_that_no_model_has_is_refused_before_large_libraries_are_loaded(model, words, lake):
    arguments = ["sample", "--model", model, "--lake", lake.uri, "--prompt", "x"]
    heavy = {"awkward", "gigatoken", "numpy", "pyarrow", "pyspark", "tokenizers", "torch"}
    code = f"import sys; from jobs.cli.main import main; print(main({arguments}), {heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 set()\n", done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_lake_without_a_champion_says_how_to_get_one(tmp_path, capsys):
    assert main(["champion", "list", "--lake", str(tmp_path)]) == 0
    assert "no champion yet" in capsys.readouterr().err
