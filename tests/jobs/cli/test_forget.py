"""The command ``forget``: what it forgets, which models it names, and what it refuses."""

import json

import pytest

from jobs.cli.main import main
from jobs.lake import store
from jobs.lake.champion import promote_by_hand
from jobs.lake.forgotten import hashes_of, read_forgotten
from jobs.lake.layout import Lake
from tests.jobs.cli.test_replay import SMALL
from tests.support.growing import lines, texts_of

RUN = SMALL | {"windows.split": "fixed", "tokenize.documents": "line", "train.max_tokens": 8 * 8 * 16}


@pytest.fixture
def lake(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(lines(0))
    return Lake((tmp_path / "lake").as_uri())


def make(lake, run_id, **changes):
    settings = RUN | {key.replace("__", "."): value for key, value in changes.items()}
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    words = ["run", "--corpus", lake.uri.replace("/lake", "/texts"), "--lake", lake.uri, "--preset", "tiny"]
    assert main([*words, "--run-id", run_id, *options]) == 0
    return lake.run(run_id)


def forget(lake, *words):
    return main(["forget", *map(str, words), "--lake", lake.uri])


def rows(capsys):
    """Return the lines of a table, without those that a run has printed."""
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


@pytest.mark.long
@pytest.mark.slow
def test_models_that_saw_a_document_are_named(lake, tmp_path, capsys):
    first = make(lake, "first")
    promote_by_hand(first, lake.pipeline(), "ann", "the first", {})
    trained = min(texts_of(first, "train"))
    letter = tmp_path / "letter.txt"
    letter.write_text(f"  {trained}\n")
    capsys.readouterr()
    assert forget(lake, letter, "--dry-run") == 0
    seen = [first.folder, "default", "trained on", "-"]
    begins, *found = rows(capsys)[1:]
    assert begins[1].startswith(trained[:40])
    assert found == [["model of run", "champion of", "has", "through run"], seen]
    assert read_forgotten(lake) == ()
    assert forget(lake, letter, "--why", "asked by the author") == 0
    assert seen in rows(capsys)
    [document] = read_forgotten(lake)
    assert (document.why, document.by.startswith("command line: ")) == ("asked by the author", True)
    child = make(lake, "child", train__init="champion", tokenize__tokenizer="inherit")
    scratch = make(lake, "scratch")
    for folder in (scratch.train, scratch.model):
        store.delete_folder(folder)
    store.write_json(scratch.datasets, store.read_json(first.datasets))
    lost = make(lake, "lost", tokenize__vocab_size=290)
    store.delete_folder(lake.dataset("tokens", store.read_json(lost.datasets)["tokens"]))
    capsys.readouterr()
    assert forget(lake, "--hash", f"{document.hash:016x}", "--why", "again") == 0
    found = rows(capsys)
    assert seen in found
    assert [child.folder, "-", "trained on", first.folder] in found
    assert [lost.folder, "-", "not known", "-"] in found
    assert [scratch.folder, "-", "would train on", "-"] in found
    assert main(["replay", first.folder, "--lake", lake.uri, "--run-id", "replayed"]) == 2
    assert "the lake has forgotten 1 document since" in capsys.readouterr().err
    assert forget(lake) == 0
    assert [f"{document.hash:016x}", document.time, document.by, "asked by the author"] in rows(capsys)
    assert trained not in texts_of(child, "train")
    assert hashes_of(read_forgotten(lake)) == (document.hash,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hash", "12"), "--hash 12: not the hash of a document; give its 16 hexadecimal digits"),
        (("--hash", "0x12345678901234"), "not the hash of a document"),
        (("--hash", "1234_5678_9012_3"), "not the hash of a document"),
        (("letter.txt",), "--why: missing; give the reason for forgetting the documents"),
        (("letter.txt", "--why", "x"), "champion.json: no champion yet; name a run with --like"),
        (("letter.txt", "--why", "x", "--like", "nobody"), "nobody"),
    ],
)
def test_a_mistake_is_one_line_and_forgets_nothing(lake, capsys, words, message):
    store.write_bytes(lake.run("r").config, b"{}")
    why = () if "--why" in words or words[0] != "--hash" else ("--why", "x")
    assert forget(lake, *words, *why) == 2
    [said] = capsys.readouterr().err.strip().splitlines()
    assert message in said
    assert read_forgotten(lake) == ()


def test_a_lake_without_runs_is_a_mistake(lake, capsys):
    assert forget(lake, "--hash", "0" * 16, "--why", "x") == 2
    assert "no run in this lake, so no document to forget; check --lake" in capsys.readouterr().err
    assert read_forgotten(lake) == ()


def test_a_lake_without_forgotten_documents_says_so(lake, capsys):
    assert forget(lake) == 0
    assert "no document is forgotten" in capsys.readouterr().err
